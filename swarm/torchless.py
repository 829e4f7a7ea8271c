"""hivemind without torch, for a process that trains nothing: its daemon, streams and DHT need none, only its front doors do."""

import importlib
import importlib.util
import os
import sys
from types import ModuleType

_WITHOUT_FRONT_DOOR = (
    "hivemind",
    "hivemind.utils",
    "hivemind.dht",
)  # whose __init__ loads averagers, optimisers and experts
_OF_UTILS = {  # what the rooms that are used take from `hivemind.utils`, and where it lies in it (hivemind 1.1.12)
    "asyncio": ("amap_in_executor", "as_aiter", "enter_asynchronously", "switch_to_uvloop"),
    "logging": ("get_logger",),
    "serializer": ("MSGPackSerializer", "SerializerBase"),
    "timed_storage": (
        "MAX_DHT_TIME_DISCREPANCY_SECONDS",
        "DHTExpiration",
        "TimedStorage",
        "ValueWithExpiration",
        "get_dht_time",
    ),
}


def enter_without_torch() -> None:
    """To be called before anything of hivemind is imported, by a process of its own: nothing of hivemind that uses tensors can be had in
    it. Saves 300 MB of memory and the seconds of torch's import. Nothing happens where hivemind is here already, or is not installed."""
    found = None if "hivemind" in sys.modules else importlib.util.find_spec("hivemind")
    if found is None or not found.submodule_search_locations:
        return
    root = next(iter(found.submodule_search_locations))
    for name in _WITHOUT_FRONT_DOOR:
        package = ModuleType(name)
        package.__path__ = [os.path.join(root, *name.split(".")[1:])]
        package.__package__ = name
        sys.modules[name] = package
        above, _, own = name.rpartition(".")
        if above:
            setattr(sys.modules[above], own, package)
    utils = sys.modules["hivemind.utils"]
    for room, names in _OF_UTILS.items():
        module = importlib.import_module(f"hivemind.utils.{room}")
        for each in names:
            setattr(utils, each, getattr(module, each))


__all__ = ["enter_without_torch"]
