"""Dataparsers as nerfstudio finds them.

nerfstudio loads these entry points while its own datamanager is only half imported, so nothing here may import a
datamanager, model, pipeline or trainer, not even indirectly.
"""

from nerfstudio.plugins.registry_dataparser import DataParserSpecification

from semflow_nerfstudio.data.dynamic_scene import DynamicSceneDataParserConfig
from semflow_nerfstudio.data.transforms import SemFlowDataParserConfig

dynamic_scene_data = DataParserSpecification(
    config=DynamicSceneDataParserConfig(),
    description="Semantic Dynamic Scene / DynamicNeRF layout, with or without labels",
)
semflow_data = DataParserSpecification(
    config=SemFlowDataParserConfig(),
    description="nerfstudio's transforms.json with times, labels, flow, masks and depth",
)
