"""FSDP on CPU processes: accelerate keeps it for GPUs, while it works with gloo as well."""

from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType


def allow_dividing_on_cpu() -> None:
    """From now on `Accelerator` does with FSDP on CPUs what it does on GPUs."""
    initialize = AcceleratorState.__init__

    def initialize_divided(self, *args, fsdp_plugin=None, **kwargs):
        initialize(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
        if fsdp_plugin is not None:  # accelerate asks for the state again without it
            self.distributed_type, self.fsdp_plugin = DistributedType.FSDP, fsdp_plugin
            if self.mixed_precision != "no":
                fsdp_plugin.set_mixed_precision(self.mixed_precision)
        assert self.distributed_type == DistributedType.FSDP, "nothing is divided"
        PartialState._shared_state["distributed_type"] = self.distributed_type

    AcceleratorState.__init__ = initialize_divided
