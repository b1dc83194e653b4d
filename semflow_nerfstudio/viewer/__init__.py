"""The "Semantics" tab of nerfstudio's viewer; `panel.SemanticsControl` is what the pipeline holds."""
