"""The one interface behind which estimators stand."""

from __future__ import annotations

from typing import Protocol

from stowage.api.refusal import Refusal
from stowage.performance.forecast import Forecast
from stowage.performance.serving import Serving
from stowage.performance.traffic import Traffic


class Estimator(Protocol):
    """Whoever forecasts. A refusal says why it has no answer; it is never an exception."""

    @property
    def name(self) -> str:
        """Who answers, as `Forecast.answered_by` says it."""

    def forecast(self, serving: Serving, traffic: Traffic) -> Forecast | Refusal:
        """Give what this traffic sees from this replica, or why it cannot be said."""
