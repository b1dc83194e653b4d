"""From a video or a folder of images to a `semflow-data` scene, and checks of scenes from anywhere."""
