"""Sources of training data: one file per kind of source, each with its own settings.

Another package registers a kind in its `pyproject.toml`:

    [project.entry-points."janusflow.sources"]
    icons = "my_package.source:IconsConfig"
"""

from janusflow.data.sources.config import Source, SourceConfig
from janusflow.data.sources.files import FileConfig, FileSource
from janusflow.data.sources.own import file_config, kind_of, size_of, tasks_of

__all__ = [
    "FileConfig",
    "FileSource",
    "Source",
    "SourceConfig",
    "file_config",
    "kind_of",
    "size_of",
    "tasks_of",
]
