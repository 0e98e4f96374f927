"""``dimee export --mobile``: the mobile bundle or the app as files, without torch."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from lab.cli.export import export
from mobile_client.web import STATIC
from mobile_client.web.app_config import AppConfig
from mobile_client.web.export import not_in_browsers
from shared.bundle.loading import Bundle
from shared.bundle.mobile_bundle import MobileBundle, MobileManifest, make_mobile_bundle
from shared.errors import DimeeError, InvalidInput
from tests.support.paths import BUNDLE, REPOSITORY

BUNDLE_FILES = {
    "manifest.json", "tokenizer.json.gz", "embeddings.safetensors.gz", "router.json.gz",
    "layers/01.onnx.gz",
}  # fmt: skip
WITHOUT_TORCH = """
import sys
from mobile_client.cli.main import main
sys.argv = ["dimee", "export", "--mobile", {target!r}, "--bundle", {bundle!r}]
main()
heavy = {{"torch", "transformers", "onnx", "fastapi", "starlette"}} & set(sys.modules)
assert not heavy, heavy
"""


def exported(*arguments: str | Path) -> Result:
    """Run the command; its errors are raised."""
    options = [*map(str, arguments), "--bundle", str(BUNDLE), "--mobile-layers", "1"]
    return CliRunner().invoke(export, options, catch_exceptions=False)


def files_of(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_folder_has_the_mobile_bundle_and_is_replaced_by_the_next(tmp_path: Path) -> None:
    target = tmp_path / "new" / "mobile"
    result = exported("--mobile", target)
    assert result.exit_code == 0
    assert files_of(target) == BUNDLE_FILES
    assert "layers 1 to 1 of 6: 13.0 MB to transfer" in result.output
    (target / "left-over").write_text("")
    exported("--mobile", target)
    assert files_of(target) == BUNDLE_FILES
    assert [path.name for path in target.parent.iterdir()] == ["mobile"]


def test_it_needs_neither_torch_nor_a_web_framework(tmp_path: Path) -> None:
    code = WITHOUT_TORCH.format(target=str(tmp_path / "mobile"), bundle=str(BUNDLE))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "mobile" / "layers" / "02.onnx.gz").is_file()


def test_app_is_complete_for_a_static_server(tmp_path: Path) -> None:
    target = tmp_path / "app"
    exported(
        "--mobile", target, "--with-app", "--gateway", "https://gate.example:8701/",
        "--cloud-url", "https://cloud.example", "--needs-token",
    )  # fmt: skip
    assert files_of(target) == (
        files_of(STATIC) | {f"bundle/{name}" for name in BUNDLE_FILES} | {"config.json"}
    )
    config = AppConfig.model_validate_json((target / "config.json").read_bytes())
    assert config.tiers.edge == "https://gate.example:8701/app/relay/edge"
    assert config.tiers.cloud == "https://cloud.example"
    assert config.ledger == "https://gate.example:8701/app/relay/ledger"
    assert (config.bundle, config.auth_required, config.bundle_auth) == ("bundle/", True, False)
    manifest = json.loads((target / "bundle" / "manifest.json").read_bytes())
    assert config.bundle_id == manifest["bundle_id"]
    assert config.cost_model == manifest["cost_model"]
    assert len(config.samples) == 1


def test_app_without_a_ledger_records_nothing(tmp_path: Path) -> None:
    urls = ("--edge-url", "https://edge.example", "--cloud-url", "https://cloud.example")
    exported("--mobile", tmp_path / "app", "--with-app", *urls)
    config = json.loads((tmp_path / "app" / "config.json").read_bytes())
    assert (config["ledger"], config["auth_required"]) == (None, False)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--mu", "0.2"), "--mu: is of no use with --mobile"),
        (("run",), "RUN: leave it out"),
        (("--gateway", "http://g"), "--with-app: add it"),
        (("--with-app",), "needs to know where edge and cloud are"),
        (("--with-app", "--gateway", "g"), "--gateway: begins with neither"),
        (("--with-app", "--edge-url", "http://e"), "needs to know where edge and cloud are"),
        (("--edge-layers", "9"), "1 <= m < n <= 6"),
    ],
)
def test_wrong_options_are_refused(
    tmp_path: Path, arguments: tuple[str, ...], problem: str
) -> None:
    with pytest.raises(DimeeError, match=problem):
        exported("--mobile", tmp_path / "mobile", *arguments)
    assert list(tmp_path.iterdir()) == []


def test_other_uses_of_export_refuse_the_options_of_the_mobile_bundle() -> None:
    with pytest.raises(InvalidInput, match="--with-app: is of no use without --mobile"):
        CliRunner().invoke(export, ["run", "bundle", "--with-app"], catch_exceptions=False)
    assert "give RUN and BUNDLE, or --mobile" in CliRunner().invoke(export, []).output


def test_tokenizer_that_the_app_cannot_read_is_said(bundle: Bundle) -> None:
    mobile = make_mobile_bundle(bundle, 1, 2)
    assert not_in_browsers(mobile) is None
    for part in ("model", "normalizer", "pre_tokenizer"):
        parts = json.loads((BUNDLE / "tokenizer.json").read_bytes()) | {part: {"type": "BPE"}}
        files = mobile.files | {"tokenizer.json.gz": gzip.compress(json.dumps(parts).encode())}
        note = not_in_browsers(MobileBundle(mobile.manifest, files))
        assert note is not None
        assert "only those of BERT encoders" in note


def test_folder_with_other_files_is_kept(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InvalidInput, match="is not a bundle"):
        exported("--mobile", tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_page_of_the_format_shows_what_the_command_prints() -> None:
    page = (REPOSITORY / "docs" / "mobile-bundle.md").read_text(encoding="utf-8")
    manifest = json.loads((BUNDLE / "manifest.json").read_bytes())
    shown = page.split("$ dimee export --mobile out/mobile\n")[1].split("```")[0]
    assert f"({manifest['task']}), layers 1 to {manifest['mobile_layers']} of" in shown
    for name in BUNDLE_FILES | {"layers/02.onnx.gz"}:
        assert f"  {name} " in shown
    for name in MobileManifest.model_fields:
        assert f"`{name}`" in page, name
