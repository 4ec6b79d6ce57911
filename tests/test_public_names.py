"""What `faceswap_diffusion` offers at its top, and that looking at it costs nothing."""

import pytest
from diffusers.models.modeling_utils import ModelMixin

import faceswap_diffusion


@pytest.mark.parametrize("name", faceswap_diffusion.__all__)
def test_every_public_name_is_there(name: str):
    value = getattr(faceswap_diffusion, name)
    assert name == "__version__" or value.__name__ == name
    assert name in dir(faceswap_diffusion)


def test_model_mixin_is_that_of_diffusers():
    # Diffusers looks for the base classes of a component on the module which the component's class names.
    assert faceswap_diffusion.ModelMixin is ModelMixin
    assert faceswap_diffusion.FaceConditioner.__module__ == "faceswap_diffusion"
    assert issubclass(faceswap_diffusion.FaceConditioner, faceswap_diffusion.ModelMixin)


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="'faceswap_diffusion' has no attribute 'FaceWarper'"):
        faceswap_diffusion.FaceWarper  # noqa: B018
