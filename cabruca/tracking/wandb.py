"""Weights & Biases: configuration, scalars, pictures, the model card; offline where WANDB_MODE says so or no key is."""

from __future__ import annotations

import logging
import netrc
import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cabruca.commands import command
from cabruca.config.schema import Config
from cabruca.tracking.pictures import plots_of
from cabruca.tracking.run_dir import RunDir
from cabruca.tracking.scalars import best_scalar, finite, step_scalars
from cabruca.tracking.secrets import hide
from cabruca.tracking.study_place import StudyPlace, short_id
from cabruca.train.protocols import NOTICE, BaseCallback, Record, RunInfo, TrainResult

INIT_TIMEOUT_S = 30
"""After which W&B counts as out of reach."""

_log = logging.getLogger("cabruca.tracking")


class WandbTracker(BaseCallback):
    """One W&B run a run folder; its files lie under `<run>/wandb`.

    The run's id is derived from the folder, so a resumed run goes on in the same one, offline too: synced, the
    offline parts join. Each record is sent at its optimizer step. W&B's global run is neither used nor set, so that a
    process can train one model after the other.

    A trial's run belongs to the group of its study, has an id of study and trial, and keeps what the sampler chose
    under `search` in its configuration.
    """

    def __init__(self, run_dir: RunDir, config: Config, within: StudyPlace | None = None) -> None:
        os.environ.setdefault("WANDB_SILENT", "true")
        import wandb

        self._wandb = wandb
        self._run_dir, self._within = run_dir, within
        self._tracking = config.tracking
        self._monitor = config.training.monitor_metric
        self._run: Any = None

    def on_start(self, info: RunInfo) -> None:
        mode = os.environ.get("WANDB_MODE", "").lower()
        if mode not in ("offline", "disabled") and not _has_key():
            # W&B itself would ask for the key on the terminal, and wait there
            if mode:
                raise RuntimeError(f"W&B has no API key; run `wandb login`, or set WANDB_MODE=offline, not {mode}")
            mode = "offline"
            _log.info(
                "W&B has no API key: this run is kept offline; `wandb login` sends the next as it goes",
                extra=None if self._within else NOTICE,  # a study says it once
            )
        try:
            self._run = self._init(info, offline=mode == "offline")
        except Exception as error:
            if mode in ("offline", "disabled"):
                raise
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
            _log.warning("W&B cannot take this run (%s): it is kept offline, to be sent later", hide(reason))
            self._wandb.teardown()  # its service still holds the run that could not begin
            self._run = self._init(info, offline=True)

    def _init(self, info: RunInfo, *, offline: bool) -> Any:
        folder, within = str(self._run_dir.path.resolve()), self._within
        return self._wandb.init(
            project=self._tracking.wandb_project,
            entity=self._tracking.wandb_entity,
            name=self._run_dir.name,
            group=within.wandb_group if within else None,
            job_type=within.kind if within else None,
            id=within.wandb_id if within else short_id(folder),
            dir=folder,
            config={**info.config, **({"search": dict(within.params)} if within else {})},
            mode="offline" if offline else None,
            resume=None if offline else "allow",
            # else a run that has not ended yet, in a process that is used again, would be given once more
            reinit="create_new",
            settings=self._wandb.Settings(
                **{"console": "off", "init_timeout": INIT_TIMEOUT_S, "x_disable_stats": True},
                # the command line and the git remote, which it would keep, may hold passwords
                **{"x_disable_meta": True, "disable_git": True},
            ),
        )

    def on_step(self, record: Record) -> None:
        self._run.log(step_scalars(record), step=record.step)

    def on_validation(self, record: Record) -> None:
        pictures = {f"val/{p.name}": self._wandb.Image(p.rgb) for p in record.pictures}
        if pictures:
            self._run.log(pictures, step=record.step)

    def on_epoch(self, record: Record) -> None:
        self._run.log(finite(record), step=record.step)

    def on_end(self, result: TrainResult | None, error: BaseException | None) -> None:
        if self._run is None:
            return
        if result is not None:
            self._run.summary.update(best_scalar(result, self._monitor))
        self._send_files()
        files, offline = str(self._run.dir), bool(getattr(self._run, "offline", False))
        self._run.finish(exit_code=0 if result is not None else 1)
        if offline:
            folder = files.removesuffix("/files")
            send = command("sync", folder, program="wandb")
            _log.info("W&B kept this run offline; send it with: %s", send, extra=None if self._within else NOTICE)

    def _send_files(self) -> None:
        plots = {name: self._wandb.Image(str(file)) for name, file in plots_of(self._run_dir).items()}
        if plots:
            self._run.log(plots)
        if self._run_dir.model_card.is_file():
            card = str(self._run_dir.model_card.resolve())
            self._run.save(card, base_path=str(self._run_dir.path.resolve()), policy="now")


def _has_key() -> bool:
    """Whether W&B could sign in: WANDB_API_KEY, or a line that `wandb login` left in the netrc file."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    for path in (os.environ.get("NETRC"), Path.home() / ".netrc", Path.home() / "_netrc"):
        if path and Path(path).is_file():
            try:
                return netrc.netrc(path).authenticators(host) is not None
            except (netrc.NetrcParseError, OSError):
                return True  # not ours to judge: let W&B read it its own way
    return False
