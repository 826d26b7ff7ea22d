"""Several models of one recipe as one: the folds, and seeds, of a cross-validation vote on every voxel."""

from __future__ import annotations

from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attentus.errors import BadFile
from attentus.infer.model import Model, read_volume
from attentus.infer.segment import Wish, expect, segment

if TYPE_CHECKING:
    from os import PathLike

    from attentus.infer.forecast import Forecast
    from attentus.infer.segment import Vote
    from attentus.infer.speed import Speed
    from attentus.progress import Progress
    from attentus.recipes import Recipe
    from attentus.types import Case, Prediction, Volume


@dataclass(eq=False)
class Ensemble:
    """Models that segment together; it has the face of a `Model`."""

    models: tuple[Model, ...]
    vote: Vote = "mean"
    """"mean" takes the mean of their probabilities, "majority" counts one vote each (RA-UNet)."""
    folder: Path | None = None

    @classmethod
    def load(cls, folder: str | PathLike[str], *, vote: Vote = "mean", **options: Any) -> Ensemble:
        """Load every model folder in a folder, such as `train --folds all` writes.

        Args:
            folder: holds model folders.
            vote: how they decide together.
            **options: see `Model.load`.

        Raises:
            BadFile: no folder of model folders, or a damaged one.
        """
        places = member_folders(Path(folder))
        if not places:
            raise BadFile(folder, "holds no model folders", "Name a folder of folds, or a model folder.")
        return cls(tuple(Model.load(place, **options) for place in places), vote, Path(folder))

    @property
    def recipe(self) -> Recipe:
        """Of the first model; the others share its structures."""
        return self.models[0].recipe

    @property
    def names(self) -> dict[str, int]:
        """Structure to the integer it has in label files."""
        return self.models[0].names

    @property
    def fingerprint(self) -> str:
        """Of all models and how they vote; see `Model.fingerprint`."""
        members = " ".join([self.vote, *(model.fingerprint for model in self.models)])
        return blake2b(members.encode(), digest_size=16).hexdigest()

    def at_speed(self, speed: Speed, *, scans: int = 1) -> Ensemble:
        """The same for predicting only, faster; see `Model.at_speed`."""
        return replace(self, models=tuple(model.at_speed(speed, scans=scans) for model in self.models))

    def predict(
        self,
        scan: Volume | Case | str | PathLike[str],
        *,
        clean: bool = True,
        probabilities: bool = False,
        attention: bool = False,
        max_ram: int | None = None,
        progress: Progress | None = None,
    ) -> Prediction:
        """Segment one scan with all models; see `Model.predict`. Attention is that of the first model.

        Raises:
            BadInput: see `Model.predict`; also models that segment other structures.
        """
        members = [m.member(attention=attention and k == 0) for k, m in enumerate(self.models)]
        wish = Wish(clean, probabilities, self.vote, max_ram)
        found = segment(members, read_volume(scan), wish, progress)
        return replace(found, model=f"{self.recipe.name} ({len(self.models)} models)")

    def forecast(self, scan: Volume | Case | str | PathLike[str]) -> Forecast:
        """What `predict` will take; see `Model.forecast`."""
        return expect([model.member() for model in self.models], read_volume(scan))


def member_folders(folder: Path) -> list[Path]:
    """The model folders in a folder, by name."""
    if not folder.is_dir() or (folder / "recipe.yaml").is_file():
        return []
    return sorted(place.parent for place in folder.glob("*/recipe.yaml"))


def load(folder: str | PathLike[str], *, vote: Vote = "mean", **options: Any) -> Model | Ensemble:
    """Load a model folder, or all models of a folder of folds as one.

    Args:
        folder: of a model, or of several.
        vote: how several decide together.
        **options: see `Model.load`.

    Raises:
        BadFile: neither.
    """
    if member_folders(Path(folder)):
        return Ensemble.load(folder, vote=vote, **options)
    return Model.load(folder, **options)


def load_at(folder: str | PathLike[str], speed: Speed, *, scans: int = 1, **options: Any) -> Model | Ensemble:
    """`load`, for predicting some scans at a level of speed; see `Model.at_speed`."""
    return load(folder, **options).at_speed(speed, scans=scans)
