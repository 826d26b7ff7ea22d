"""OpenVINO and NNCF, kept from reporting their use."""

from __future__ import annotations

import logging
import sys
from typing import Any

from attentus.errors import MissingExtra
from attentus.infer.backends.signal_stack import signal_stack_kept


@signal_stack_kept()
def load(package: str = "openvino") -> Any:
    """OpenVINO or NNCF, kept from reporting its use.

    Both send events to their makers over the network when imported, unless openvino_telemetry is not to be had. A
    program that reads patients' scans must not do that.

    Raises:
        MissingExtra: it is not installed.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type] # as documented: import then fails
    try:
        if package == "openvino":
            import openvino

            return openvino
        import nncf
    except ImportError as error:
        purpose = "The backend openvino" if package == "openvino" else "Quantisation to int8"
        raise MissingExtra(package, "openvino", purpose) from error
    nncf.set_log_level(logging.ERROR)
    return nncf
