"""The Python interface: quantize, distil, measure and export any network that enlarges images, with the code under the commands.

`import basicsr` reaches all of it, and imports torch only when something of it is used. May import everything below the commands.
"""

from basicsr.interface.crops import draw_crops
from basicsr.interface.distilling import distill
from basicsr.interface.evaluating import evaluate
from basicsr.interface.quantized_network import QuantizedNetwork
from basicsr.interface.quantizing import quantize
from basicsr.interface.recipes import methods
from basicsr.interface.storing import export, load

__all__ = [
    "QuantizedNetwork",
    "distill",
    "draw_crops",
    "evaluate",
    "export",
    "load",
    "methods",
    "quantize",
]
