"""FSDP on two CPU processes: accelerate keeps it for GPUs, while PyTorch's works with gloo as well."""

from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType


def allow_fsdp_on_cpu() -> None:
    """From now on `Accelerator` does with FSDP on CPUs what it does on GPUs."""
    initialize = AcceleratorState.__init__

    def initialize_with_fsdp(self, *args, fsdp_plugin=None, **kwargs):
        initialize(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
        if fsdp_plugin is not None:
            self.distributed_type, self.fsdp_plugin = DistributedType.FSDP, fsdp_plugin
            if self.mixed_precision != "no":
                fsdp_plugin.set_mixed_precision(self.mixed_precision)

    AcceleratorState.__init__ = initialize_with_fsdp
