"""Which optimizer trains which parameter."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

GROUPS = ("fields", "flow", "proposals", "semantics", "semantic_grid")
"""Names of the groups; each has an optimizer in the methods' configurations."""


def parameter_groups(named: Iterable[tuple[str, nn.Parameter]]) -> dict[str, list[nn.Parameter]]:
    """Every trainable parameter of a model, in exactly one group; groups without any are left out."""
    groups: dict[str, list[nn.Parameter]] = {name: [] for name in GROUPS}
    for name, parameter in named:
        if parameter.requires_grad and parameter.numel():
            groups[group_of(name)].append(parameter)
    return {name: parameters for name, parameters in groups.items() if parameters}


def group_of(name: str) -> str:
    """The group of a parameter of the model, by its name."""
    if ".proposal_fields." in name:
        return "proposals"
    if ".flow_field." in name:
        return "flow"
    if ".semantic_grid." in name:
        return "semantic_grid"
    if name.startswith("shared.") or "_residual." in name:
        return "semantics"
    return "fields"
