"""The configuration: a YAML file, the environment and flags go in, a checked `Config` comes out.

Whatever is wrong with a configuration by itself is found here, before any file of the user's is opened.
"""

from enrich.config.api_key import KEY_VARIABLE
from enrich.config.budget import UNITS, BudgetConfig, BudgetWindow, ModelPrices
from enrich.config.endpoint import DEFAULT_BASE_URL, URL_VARIABLE, Endpoint, EndpointConfig
from enrich.config.escalate import Escalate, Stage
from enrich.config.evidence import Evidence
from enrich.config.gold import GoldConfig
from enrich.config.job import Config, JobConfig
from enrich.config.ledger_url import holds_password, without_password
from enrich.config.limits import RATES, LimitsConfig, RetryConfig, WindowConfig
from enrich.config.load import (
    complete_config,
    load_config,
    load_job,
    read_mapping,
    validate_config,
    validate_job,
)
from enrich.config.overlap import MANIFEST_SUFFIX, Place, read_by, refuse, refuse_overlaps, refuse_target
from enrich.config.problems import problems
from enrich.config.section import Format, Location, Section
from enrich.config.steps import Example, Message, Role, StepConfig, StepLimits
from enrich.config.tables import CsvOptions, InputConfig, OutputConfig
from enrich.config.votes import Votes

__all__ = [
    "DEFAULT_BASE_URL",
    "KEY_VARIABLE",
    "MANIFEST_SUFFIX",
    "RATES",
    "UNITS",
    "URL_VARIABLE",
    "BudgetConfig",
    "BudgetWindow",
    "Config",
    "CsvOptions",
    "Endpoint",
    "EndpointConfig",
    "Escalate",
    "Evidence",
    "Example",
    "Format",
    "GoldConfig",
    "InputConfig",
    "JobConfig",
    "LimitsConfig",
    "Location",
    "Message",
    "ModelPrices",
    "OutputConfig",
    "Place",
    "RetryConfig",
    "Role",
    "Section",
    "Stage",
    "StepConfig",
    "StepLimits",
    "Votes",
    "WindowConfig",
    "complete_config",
    "holds_password",
    "load_config",
    "load_job",
    "problems",
    "read_by",
    "read_mapping",
    "refuse",
    "refuse_overlaps",
    "refuse_target",
    "validate_config",
    "validate_job",
    "without_password",
]
