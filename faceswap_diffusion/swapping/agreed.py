"""Who agreed to swaps: a list of people, known by their faces, beyond which nobody's face is swapped."""

import hashlib
import json
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from faceswap_diffusion.provenance.save import replace_file
from faceswap_diffusion.swapping.identity_files import check_identity_output
from faceswap_diffusion.swapping.source_identity import FORMAT as IDENTITY
from faceswap_diffusion.swapping.source_identity import SAME_NETWORKS, SourceIdentity

FORMAT = "faceswap-diffusion list of who agreed 1"
ANEW = "write it with `faceswap-diffusion identity --list`"


@dataclass(frozen=True, eq=False)
class AgreedPeople:
    """The people who agreed.

    Args:
        names (`list[str]`): What to call them.
        embeds (`torch.Tensor` of shape `(N, D)`): What a checkpoint's recogniser makes of their faces, of unit length.
        fingerprint (`torch.Tensor` of shape `(F,)`): Tells the networks, see `SwapSteps.fingerprint`.
        same_person (`float`): Least cosine of two faces of one person.
    """

    names: list[str]
    embeds: torch.Tensor
    fingerprint: torch.Tensor
    same_person: float

    def __contains__(self, embedding: torch.Tensor) -> bool:
        """Whether a face, of which the recogniser makes (D,), is that of one of them."""
        return bool((self.embeds @ embedding.float().cpu()).max() >= self.same_person)

    @property
    def digest(self) -> str:
        """Prefix of a SHA-256 over all faces."""
        return hashlib.sha256(self.embeds.numpy().tobytes()).hexdigest()[:16]

    def check_networks(self, fingerprint: torch.Tensor) -> None:
        """Checks that the list was made with networks of a fingerprint (F,).

        Raises:
            ValueError: If its own fingerprint is another one.
        """
        theirs = self.fingerprint
        if theirs.shape != fingerprint.shape or torch.dist(theirs, fingerprint) > SAME_NETWORKS:
            raise ValueError(f"the list of who agreed was made with another recogniser: {ANEW} and this checkpoint")

    def save(self, path: str | PathLike) -> None:
        """Saves the list whole or not at all.

        Raises:
            ValueError: If it cannot be saved there.
        """
        facts = json.dumps({"names": self.names, "same_person": self.same_person})
        tensors = {"embeds": self.embeds.contiguous(), "fingerprint": self.fingerprint.contiguous()}
        replace_file(check_identity_output(path), save(tensors, {FORMAT: facts}))

    @classmethod
    def load(cls, path: str | PathLike, same_person: float) -> "AgreedPeople":
        """Reads a list, or the identity of one person.

        Args:
            path (`str | PathLike`): What `save` wrote, or [`SourceIdentity`]'s.
            same_person (`float`): For an identity, which does not say it.

        Raises:
            ValueError: If the file is missing, damaged or something else.
        """
        try:
            with safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
                if IDENTITY in metadata:
                    return _of_identity(SourceIdentity.load(path), same_person)
                facts = json.loads(metadata[FORMAT])
                people = cls(
                    [str(name) for name in facts["names"]],
                    file.get_tensor("embeds").float(),
                    file.get_tensor("fingerprint").float(),
                    float(facts["same_person"]),
                )
        except FileNotFoundError:
            raise ValueError(f"cannot read {path}: there is no such file; check the path") from None
        except (SafetensorError, OSError, KeyError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"cannot read {path}: it is no list of who agreed ({error}); {ANEW}") from None
        if people.embeds.ndim != 2 or not len(people.embeds) == len(people.names) > 0:
            raise ValueError(f"cannot read {path}: it is damaged; {ANEW}")
        return people


def _of_identity(identity: SourceIdentity, same_person: float) -> AgreedPeople:
    if identity.fingerprint is None:
        raise ValueError(f"{identity.name} does not tell its networks; {ANEW}")
    return AgreedPeople(
        [Path(identity.name).stem], identity.identity_embeds.float(), identity.fingerprint, same_person
    )
