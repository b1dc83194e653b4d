"""Label importers: files of annotation tools become label images of a scene with one class table."""
