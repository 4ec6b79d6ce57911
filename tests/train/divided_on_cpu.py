"""FSDP and DeepSpeed on CPU processes: accelerate keeps them for GPUs, while they work with gloo as well."""

from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType


def allow_dividing_on_cpu() -> None:
    """From now on `Accelerator` does with FSDP and DeepSpeed on CPUs what it does on GPUs."""
    initialize = AcceleratorState.__init__

    def initialize_divided(self, mixed_precision=None, *args, fsdp_plugin=None, deepspeed_plugin=None, **kwargs):
        initialize(self, mixed_precision, *args, fsdp_plugin=fsdp_plugin, deepspeed_plugin=deepspeed_plugin, **kwargs)
        if fsdp_plugin is not None:
            self.distributed_type, self.fsdp_plugin = DistributedType.FSDP, fsdp_plugin
            if self.mixed_precision != "no":
                fsdp_plugin.set_mixed_precision(self.mixed_precision)
        elif deepspeed_plugin is not None:
            self.distributed_type, self.deepspeed_plugins = DistributedType.DEEPSPEED, deepspeed_plugin
            self._mixed_precision = "no"  # that of DeepSpeed counts
            deepspeed_plugin.set_mixed_precision(mixed_precision)
            deepspeed_plugin.select(_from_accelerator_state=True)
        assert self.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED), "nothing is divided"
        PartialState._shared_state["distributed_type"] = self.distributed_type

    AcceleratorState.__init__ = initialize_divided
