"""The errors a user can meet. The command line turns each into one line and exit code 2."""


class NMutantError(Exception):
    """Base class: something the user can put right, said in one line."""


class ConfigError(NMutantError):
    """A setting is unknown, malformed or out of range; the message names file and field."""


class DataError(NMutantError):
    """A data set or image file is missing, damaged or of the wrong shape, type or range."""


class ModelError(NMutantError):
    """A network cannot be loaded, does not fit the data or returns something unusable."""


class AttackError(NMutantError):
    """An attack was asked for something it cannot do."""


class ArtifactError(NMutantError):
    """A run folder cannot be read, written or locked, or an artefact in it is damaged."""
