"""The page docs/settings.md; `python -m tests.settings_page` writes it, and a test checks that it is up to date."""

from calmctl.cli.configurations import CONFIGURATIONS
from calmctl.cli.options import typed
from calmctl.schema import field_types, nested_schema
from calmctl.settings import list_settings, summary
from tests.structure import ROOT

PAGE = ROOT / "docs" / "settings.md"
INTRODUCTION = """# Settings

Written by `python -m tests.settings_page` from the dataclasses; `calmctl settings COMMAND [KEY]` prints the same in a
terminal, with the values of a preset beside the defaults (`--preset`, `--config`; `--json`).

A setting is changed at the end of a command (`calmctl compose ... train.lr=1e-3 bridge.gate=true`), in a file of
settings (`--config FILE.yaml`; `config.yaml` of a run is one) or in a preset (`--config-dir FOLDER --preset NAME`).
What stands at the end of the command wins over options such as `--seed`, and these win over the file or preset.
`calmctl copy compose/default my/compose/mine.yaml` starts a preset of your own, and prints the command that runs it.
Presets and files may build on a preset:

```yaml
defaults: [kv/tiny@_here_, _self_]   # `calmctl compose --preset kv/tiny`, changed by what follows
train:
  steps: 500
```

A setting of a group is written with the group's name before it: `train.lr`.
"""


def page() -> str:
    """Return the text of the page: a section for each command, then one for each group of settings."""
    named = {configuration.schema: f"calmctl {command}" for command, configuration in reversed(CONFIGURATIONS.items())}
    schemas = dict(reversed(named.items()))
    for schema in (pending := [*schemas]):  # grows while it is gone through
        for group in filter(None, map(nested_schema, field_types(schema).values())):
            if group not in schemas:
                schemas[group] = group.__name__
                pending.append(group)
    return INTRODUCTION + "".join(_section(schema, title, schemas) for schema, title in schemas.items())


def _section(schema: type, title: str, titles: dict[type, str]) -> str:
    lines = ["", f"## {title}", "", summary(schema), "", "| setting | type | default | meaning |", "|---|---|---|---|"]
    kinds = field_types(schema)
    for setting in list_settings(schema):
        if "." in setting.name:
            continue
        meaning, default = setting.meaning, "" if setting.is_required else f"`{typed(setting.default)}`"
        if (group := nested_schema(kinds[setting.name])) is not None:
            link = titles[group].lower().replace(" ", "-")
            meaning, default = f"{meaning} See [{titles[group]}](#{link}).", ""
        cells = (f"`{setting.name}{'.' if setting.is_group else ''}`", setting.type, default, meaning)
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
