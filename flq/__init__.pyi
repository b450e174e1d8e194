# The names of flq/__init__.py as type checkers and editors see them. It loads nothing.
from flq.api.configuration import Config as Config
from flq.api.quantizing import QUANTIZERS as QUANTIZERS
from flq.api.quantizing import Quantized as Quantized
from flq.api.quantizing import dequantize as dequantize
from flq.api.quantizing import quantize as quantize
from flq.api.runs import Result as Result
from flq.api.runs import load_run as load_run
from flq.api.runs import simulate as simulate
from flq.learning.own import Learner as Learner

__version__: str
