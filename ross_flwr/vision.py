"""torchvision, imported only when needed, and beside any build of torch."""

import functools
import sys
from importlib import import_module
from types import ModuleType

from ross_flwr.extras import lacking

__all__ = ["import_torchvision"]


@functools.cache  # a Library takes its definitions with it when it is collected, so keep it
def _define_box_suppression() -> object:
    from torch.library import Library

    library = Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for operator in ("nms", "qnms"):
        schema = f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        library.define(schema)  # type: ignore[no-untyped-call]
    return library


def import_torchvision() -> ModuleType:
    """Import torchvision, also beside a torch it was not built for.

    The package index serves torchvision as a CUDA build. Beside a CPU build of torch its compiled operators
    do not load. It tolerates that, but goes on to describe two of them to torch, and there its import ends
    with "operator torchvision::nms does not exist". Nothing here uses these operators. So when the plain
    import fails on one, we declare the two without code, forget the half-imported modules, and import once
    more. Datasets, transforms and models then work in full; only box suppression itself has no kernel.

    Raises
    ------
    ConfigError
        If torchvision is not installed.
    ImportError, RuntimeError
        If it does not import for any other reason.
    """
    try:
        return import_module("torchvision")
    except ModuleNotFoundError as error:
        if error.name != "torchvision":
            raise
        raise lacking("torchvision", "vision") from error
    except RuntimeError as error:
        if "operator torchvision::" not in str(error):
            raise
    _define_box_suppression()
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    return import_module("torchvision")
