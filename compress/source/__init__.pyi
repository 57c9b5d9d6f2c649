from .hugging_face import read_folder as read_folder
from .kinds import load as load
from .onnx_file import read_onnx as read_onnx
from .onnx_file import read_proto as read_proto
from .reference import call as call
from .reference import locate as locate
from .torch_module import from_torch as from_torch
from .torch_module import read_pt2 as read_pt2
