"""The life of profiles: each step, who may do it where, and what is in force for whom."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from sensegate.authority.bucket import MemoryBucket
from sensegate.authority.scope import Principal, Role, Scope, scope
from sensegate.errors import ConfigError, Conflict, NotFound, PermissionDenied
from sensegate.lifecycle.contents import Content, ContentStore, digest_of
from sensegate.lifecycle.history import CanaryLimits, VersionState
from sensegate.lifecycle.releases import CanaryPlan
from sensegate.model import Device
from tests.support.release_office import CITY, COUNTY, DEVICES, NAME, PROVINCE, Office, text

OTHER_COUNTY = Principal("other", Role.COUNTY_OPERATOR, scope("440103"))
OTHER_CITY = Principal("shenzhen", Role.CITY_OPERATOR, scope("4403"))
AUDITOR = Principal("auditor", Role.AUDITOR, scope("4401"))
SUBSCRIBER = Principal("subscriber", Role.SUBSCRIBER, scope("4401"))


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return Office(tmp_path)


async def test_from_draft_to_superseded(office: Office) -> None:
    """County writes and proposes, city releases; the next one supersedes it; the trail has each step with its actor."""
    await office.released(1)
    assert office.states() == {1: "released"}
    await office.proposed(2)
    assert office.states() == {1: "released", 2: "proposed"}
    assert office.of("d1") == 1
    await office.releases.release(NAME, 2, by=CITY, note="mended")
    assert office.states() == {1: "superseded", 2: "released"}
    assert {office.of(device) for device in DEVICES} == {2}
    assert office.steps() == [
        ("county", "profile.draft", "acme/th@1"),
        ("county", "profile.propose", "acme/th@1"),
        ("city", "profile.release", "acme/th@1"),
        ("county", "profile.draft", "acme/th@2"),
        ("county", "profile.propose", "acme/th@2"),
        ("city", "profile.release", "acme/th@2"),
    ]
    _, _, _, before, after = office.trail.records[-1]
    assert before == {"in_force": "1 in 4401"}
    assert after is not None
    assert (after["in_force"], after["target"], after["note"]) == ("2 in 4401", "4401", "mended")


async def test_a_version_never_changes(office: Office) -> None:
    """A draft may be written anew; a proposal, and what was ever in force, may not; withdrawn numbers are free."""
    await office.releases.draft(text(1, "first"), by=COUNTY)
    await office.releases.draft(text(1, "second"), by=COUNTY)
    repeated, _ = await office.releases.draft(text(1, "second"), by=COUNTY)
    assert repeated.digest == digest_of(text(1, "second"))
    assert len(office.steps()) == 2, "the same content again is no step"
    await office.releases.propose(NAME, 1, by=COUNTY)
    with pytest.raises(Conflict, match=r"acme/th@1 is proposed with another content; .* `version: 2`"):
        await office.releases.draft(text(1, "third"), by=COUNTY)
    await office.releases.withdraw(NAME, 1, by=COUNTY)
    await office.releases.draft(text(1, "third"), by=COUNTY)
    await office.releases.propose(NAME, 1, by=COUNTY)
    await office.releases.canary(NAME, 1, by=CITY, plan=CanaryPlan(share=0.1))
    await office.releases.end_canary(NAME, by=CITY)
    await office.releases.withdraw(NAME, 1, by=COUNTY)
    with pytest.raises(Conflict, match="withdrawn with another content"):
        await office.releases.draft(text(1, "fourth"), by=COUNTY)
    assert (await office.releases.content(NAME, 1, CITY)).text == "acme/th 1 third"


async def test_examples_decide_over_a_proposal(office: Office) -> None:
    """A draft may have failing examples, a proposal not; what is no profile at all is not even a draft."""
    _, examined = await office.releases.draft(text(1, "bad"), by=COUNTY)
    assert examined.problems == ("example 'one': saw 21",)
    with pytest.raises(ConfigError, match="example 'one': saw 21"):
        await office.releases.propose(NAME, 1, by=COUNTY)
    assert office.states() == {1: "draft"}
    with pytest.raises(ConfigError, match="profile:3: no profile"):
        await office.releases.draft(text(1, "nonsense"), by=COUNTY)
    with pytest.raises(ConfigError, match=r"is 'acme/th'.*profile: acme/other"):
        await office.releases.draft(text(2), by=COUNTY, profile="acme/other")


@pytest.mark.parametrize("who", [AUDITOR, SUBSCRIBER, OTHER_CITY])
async def test_who_may_not_propose(office: Office, who: Principal) -> None:
    """Neither those whose role has no such right nor those whose scope lies elsewhere."""
    with pytest.raises(PermissionDenied):
        await office.releases.draft(text(1), by=who)
    assert office.trail.records == []


@pytest.mark.parametrize("who", [COUNTY, OTHER_COUNTY, AUDITOR, SUBSCRIBER, OTHER_CITY])
async def test_who_may_not_release(office: Office, who: Principal) -> None:
    """A county proposes and no more; another city has nothing to say here; nothing is written."""
    await office.proposed(1)
    count = len(office.trail.records)
    for attempt in (
        lambda: office.releases.release(NAME, 1, by=who),
        lambda: office.releases.canary(NAME, 1, by=who, plan=CanaryPlan(share=0.5)),
        lambda: office.releases.rollback(NAME, by=who),
        lambda: office.releases.request_changes(NAME, 1, by=who),
    ):
        with pytest.raises((PermissionDenied, NotFound)):
            await attempt()
    assert len(office.trail.records) == count
    assert office.of("d1") == 0


async def test_a_county_has_no_hand_in_anothers(office: Office) -> None:
    """It does not see another's draft, may not propose, withdraw or overwrite it; once released everyone sees it."""
    await office.releases.draft(text(1), by=COUNTY)
    for attempt in (
        lambda: office.releases.propose(NAME, 1, by=OTHER_COUNTY),
        lambda: office.releases.withdraw(NAME, 1, by=OTHER_COUNTY),
        lambda: office.releases.shadow(NAME, 1, by=OTHER_COUNTY),
    ):
        with pytest.raises(NotFound):
            await attempt()
    with pytest.raises(PermissionDenied):
        await office.releases.draft(text(1, "mine"), by=OTHER_COUNTY)
    assert office.releases.list(OTHER_COUNTY) == []
    assert [entry.profile for entry in office.releases.list(CITY)] == [NAME]
    await office.releases.propose(NAME, 1, by=COUNTY)
    await office.releases.release(NAME, 1, by=CITY)
    assert office.releases.version(NAME, 1, OTHER_COUNTY).state is VersionState.RELEASED


async def test_standard_profiles_are_the_provinces(office: Office, tmp_path: Path) -> None:
    """By their vendor, or since the province said so; the city may propose."""
    plain = text(2, profile="sensegate/plain")
    await office.releases.draft(plain, by=CITY)
    await office.releases.propose("sensegate/plain", 2, by=CITY)
    with pytest.raises(PermissionDenied, match=r"only the province \(44\) releases it"):
        await office.releases.release("sensegate/plain", 2, by=CITY)
    with pytest.raises(PermissionDenied, match=r"only the province \(44\) releases it"):
        await office.releases.canary("sensegate/plain", 2, by=CITY, plan=CanaryPlan(share=0.1))
    await office.releases.release("sensegate/plain", 2, by=PROVINCE)
    await office.proposed(1)
    with pytest.raises(PermissionDenied):
        await office.releases.release(NAME, 1, by=CITY, standard=True)
    await office.releases.release(NAME, 1, by=PROVINCE, standard=True)
    await office.proposed(2)
    with pytest.raises(PermissionDenied, match="only the province"):
        await office.releases.release(NAME, 2, by=CITY)


async def test_a_draft_is_not_released(office: Office) -> None:
    """It must be proposed; one that was sent back is a draft again; one that was withdrawn is nothing."""
    await office.releases.draft(text(1), by=CITY)
    with pytest.raises(Conflict, match="must be proposed first"):
        await office.releases.release(NAME, 1, by=CITY)
    await office.releases.propose(NAME, 1, by=CITY)
    await office.releases.request_changes(NAME, 1, by=CITY, note="which unit?")
    assert office.releases.version(NAME, 1, CITY).note == "which unit?"
    with pytest.raises(Conflict, match="must be proposed first"):
        await office.releases.release(NAME, 1, by=CITY)
    with pytest.raises(NotFound):
        await office.releases.release(NAME, 7, by=CITY)


async def test_rollback_goes_back_step_by_step(office: Office) -> None:
    """To what was before, then to what was before that, or to a version given; then there is nothing left."""
    for version in (1, 2, 3):
        await office.released(version)
    await office.releases.rollback(NAME, by=CITY)
    assert (office.of("d1"), office.states()) == (2, {1: "superseded", 2: "released", 3: "superseded"})
    await office.releases.rollback(NAME, by=CITY)
    assert office.of("d1") == 1
    with pytest.raises(Conflict, match="nothing of acme/th was in force in 4401 before"):
        await office.releases.rollback(NAME, by=CITY)
    await office.releases.rollback(NAME, by=CITY, to=3)
    assert office.of("d1") == 3
    await office.proposed(4)
    with pytest.raises(Conflict, match="never in force"):
        await office.releases.rollback(NAME, by=CITY, to=4)


async def test_the_folders_version_can_be_gone_back_to(office: Office) -> None:
    """It is taken over with its content when another replaces it."""
    office.library[NAME] = (1, text(1, "folder"))
    with pytest.raises(Conflict, match=r"acme/th@1 is the folder's.*`version: 2`"):
        await office.releases.draft(text(1, "other"), by=COUNTY)
    await office.released(2)
    office.library[NAME] = (1, text(1, "edited"))
    await office.releases.rollback(NAME, by=CITY)
    assert office.of("d1") == 1
    assert (await office.releases.content(NAME, 1, CITY)).text == "acme/th 1 folder"
    office.library[NAME] = (5, text(5, "folder"))
    await office.released(6)
    await office.releases.rollback(NAME, by=CITY)
    assert office.of("d1") == 5


async def test_a_release_for_a_part(office: Office) -> None:
    """A county's devices have another version than the rest, until a release for the whole city."""
    await office.released(1)
    await office.released(2, target=Scope("440106"))
    assert {office.of(device) for device in DEVICES} == {1, 2}
    assert all((office.of(device.id) == 2) == (device.division == "440106") for device in DEVICES.values())
    assert office.states() == {1: "released", 2: "released"}
    with pytest.raises(ConfigError, match="4403 is not served here"):
        await office.releases.release(NAME, 2, by=PROVINCE, target=Scope("4403"))
    await office.released(3)
    assert {office.of(device) for device in DEVICES} == {3}
    assert office.states() == {1: "superseded", 2: "superseded", 3: "released"}


async def test_a_department_decides_for_its_own(office: Office) -> None:
    """A scope of one department releases for its devices and for no others."""
    environment = Principal("env", Role.CITY_OPERATOR, Scope("4401", "env"))
    await office.released(1)
    await office.proposed(2, by=environment)
    with pytest.raises(PermissionDenied):
        await office.releases.release(NAME, 2, by=environment, target=Scope("4401"))
    await office.releases.release(NAME, 2, by=environment)
    picked = [choice.number for choice in office.releases.choices() if choice.picks(Device("x", "440106", NAME))]
    assert picked[0] == 1
    theirs = Device("y", "440106", NAME, department="env")
    assert next(choice.number for choice in office.releases.choices() if choice.picks(theirs)) == 2


@pytest.mark.parametrize(("share", "count"), [(0.1, 4), (0.5, 20), (0.001, 1), (1.0, 40)])
async def test_a_canary_picks_its_share(office: Office, share: float, count: int) -> None:
    """Exactly so many of those that were there, the same in every process; the others keep what they had."""
    await office.released(1)
    await office.proposed(2)
    result = await office.releases.canary(NAME, 2, by=CITY, plan=CanaryPlan(share=share))
    assert result.canary is not None
    assert result.canary.device_count == count
    assert [office.of(device) for device in DEVICES].count(2) == count
    with pytest.raises(Conflict, match="is a canary already"):
        await office.releases.canary(NAME, 2, by=CITY, plan=CanaryPlan(share=share))
    await office.releases.rollback(NAME, by=CITY)
    assert {office.of(device) for device in DEVICES} == {1}
    assert office.states() == {1: "released", 2: "proposed"}
    assert office.steps()[-1] == ("city", "profile.canary.end", "acme/th@2")


async def test_a_canary_of_a_list(office: Office) -> None:
    """These devices and no others; those of another part or profile are refused; release makes it all of them."""
    await office.released(1)
    await office.proposed(2)
    with pytest.raises(ConfigError, match="no device d30 of acme/th in 440106"):
        await office.releases.canary(NAME, 2, by=CITY, plan=CanaryPlan(devices=("d1", "d30")), target=Scope("440106"))
    for wrong in ({"share": 1.5}, {}, {"share": 0.5, "devices": ("d1",)}):
        with pytest.raises(ConfigError):
            await office.releases.canary(NAME, 2, by=CITY, plan=CanaryPlan(**wrong))
    with pytest.raises(ConfigError, match="limits"):
        await office.releases.canary(NAME, 2, by=CITY, plan=CanaryPlan(share=0.5, limits=CanaryLimits(rejected=2)))
    await office.releases.canary(NAME, 2, by=CITY, plan=CanaryPlan(devices=("d1", "d30")))
    assert [device for device in DEVICES if office.of(device) == 2] == ["d1", "d30"]
    await office.proposed(3)
    with pytest.raises(Conflict, match="acme/th@2 is a canary"):
        await office.releases.release(NAME, 3, by=CITY)
    await office.releases.release(NAME, 2, by=CITY)
    assert {office.of(device) for device in DEVICES} == {2}
    assert office.releases.history(NAME).canary is None


BESIDE = Principal("beside", Role.CITY_OPERATOR, scope("440103"))


async def test_a_decision_of_one_area_leaves_the_canary_of_another(office: Office) -> None:
    """Release, roll-back and end by who operates beside it: the canary and its devices stay, and nothing is told."""
    await office.released(1)
    await office.proposed(2)
    await office.releases.release(NAME, 1, by=BESIDE)
    before = await office.releases.canary(NAME, 2, by=CITY, plan=CanaryPlan(devices=("d1",)), target=Scope("440106"))
    canary = before.canary
    assert canary is not None
    await office.releases.shadow(NAME, 2, by=CITY, target=Scope("440106"), devices=("d1",))
    record = office.releases.get(NAME, BESIDE)
    assert (record.canary, record.shadow) == (None, None)
    with pytest.raises(Conflict, match="no canary"):
        await office.releases.end_canary(NAME, by=BESIDE)
    with pytest.raises(Conflict, match="no version of acme/th is shadowed"):
        await office.releases.end_shadow(NAME, by=BESIDE)
    with pytest.raises(Conflict) as why:
        await office.releases.canary(NAME, 1, by=BESIDE, plan=CanaryPlan(share=0.5))
    with pytest.raises(Conflict) as also:
        await office.releases.shadow(NAME, 1, by=BESIDE)
    assert "@" not in f"{why.value}{also.value}"
    await office.releases.release(NAME, 2, by=BESIDE)
    await office.releases.rollback(NAME, by=BESIDE)
    await office.releases.rollback(NAME, by=BESIDE, to=2)
    after = office.releases.history(NAME)
    assert (after.canary, after.shadow) == (canary, before.shadow or after.shadow)
    assert after.shadow is not None
    assert office.of("d1") == 2
    county = office.releases.get(NAME, COUNTY)
    assert county.canary == canary, "in its own area"
    await office.releases.end_canary(NAME, by=CITY)
    assert office.releases.history(NAME).canary is None, "negative control"


async def test_of_a_canary_around_it_a_county_is_not_told_the_devices(office: Office) -> None:
    """That its devices are part of a trial is its business, the devices of the other counties are not."""
    await office.released(1)
    await office.proposed(2)
    await office.releases.canary(NAME, 2, by=CITY, plan=CanaryPlan(devices=("d1", "d30")))
    result = office.releases.get(NAME, COUNTY).canary
    assert result is not None
    assert (result.number, result.device_count, result.devices) == (2, 2, ())
    whole = office.releases.get(NAME, CITY).canary
    assert whole is not None
    assert whole.devices == ("d1", "d30")


async def test_a_shadow_changes_nothing_in_force(office: Office) -> None:
    """A county may see its draft run beside; what is shadowed is not withdrawn; the report goes to the trail."""
    await office.released(1)
    await office.releases.draft(text(2), by=COUNTY)
    await office.releases.shadow(NAME, 2, by=COUNTY)
    assert {office.of(device) for device in DEVICES} == {1}
    with pytest.raises(Conflict, match="is a shadow"):
        await office.releases.withdraw(NAME, 2, by=COUNTY)
    with pytest.raises(PermissionDenied):
        await office.releases.shadow(NAME, 1, by=COUNTY, target=Scope("4401"))
    await office.releases.end_shadow(NAME, by=COUNTY, report={"messages": 7})
    _, result, _, _, after = office.trail.records[-1]
    assert (result, after) == ("profile.shadow.end", {"target": "440106", "report": {"messages": 7}})
    with pytest.raises(Conflict):
        await office.releases.end_shadow(NAME, by=COUNTY)


async def test_a_county_may_not_shadow_beyond_itself(office: Office) -> None:
    """Its own part is what is shadowed."""
    await office.releases.draft(text(1), by=COUNTY)
    result = await office.releases.shadow(NAME, 1, by=COUNTY)
    assert result.shadow is not None
    assert result.shadow.target == Scope("440106")


async def test_two_processes_see_and_fence_one_another(office: Office, tmp_path: Path) -> None:
    """A step of one is in force at the other; of two that decide on the same state the second is told to look again."""
    other = Office(tmp_path / "other", like=office)
    await other.releases.load()
    task = asyncio.create_task(other.releases.watch())
    await office.released(1)
    await other.releases.until(lambda: other.of("d1") == 1)
    await office.proposed(2)
    await other.releases.until(lambda: other.releases.history(NAME).find(2) is not None)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await office.releases.request_changes(NAME, 2, by=CITY)
    with pytest.raises(Conflict, match="changed meanwhile"):
        await other.releases.release(NAME, 2, by=CITY)
    assert office.of("d1") == 1


async def test_a_store_read_anew_says_the_same(office: Office, tmp_path: Path) -> None:
    """After a restart the same versions are in force for the same devices."""
    await office.released(1)
    await office.proposed(2)
    await office.releases.canary(NAME, 2, by=CITY, plan=CanaryPlan(share=0.25))
    reopened = Office(tmp_path / "again", like=office)
    await reopened.releases.load()
    assert [reopened.of(device) for device in DEVICES] == [office.of(device) for device in DEVICES]
    assert reopened.releases.history(NAME) == office.releases.history(NAME)


async def test_notes_are_one_plain_line(office: Office) -> None:
    """Control characters and novels are refused."""
    for note in ("a\x1b[31m", "x" * 501):
        with pytest.raises(ConfigError, match="note"):
            await office.releases.draft(text(1), by=COUNTY, note=note)


# ── contents ──────────────────────────────────────────────────────────────────────────────────────────


async def test_contents_are_laid_out_as_they_were(tmp_path: Path) -> None:
    """With the files beside it, byte for byte; what was tampered with is laid out anew; once kept, for good."""
    contents = ContentStore(MemoryBucket(), tmp_path / "out")
    content = Content("profile: acme/th\r\nscript: codec.js\n", {"codec.js": "//\u6e29\r\n"})
    digest = await contents.store(content)
    assert await contents.store(content) == digest
    file = await contents.materialise(NAME, digest)
    assert file.read_bytes() == content.text.encode()
    assert (file.parent / "codec.js").read_bytes() == content.files["codec.js"].encode()
    file.write_text("profile: acme/th\nscale: 10\n", encoding="utf-8")
    assert (await contents.materialise(NAME, digest)).read_bytes() == content.text.encode()
    with pytest.raises(NotFound):
        await contents.materialise(NAME, "0" * 64)


async def test_a_damaged_store_gives_nothing(tmp_path: Path) -> None:
    """What is kept under a digest must have it."""
    bucket = MemoryBucket()
    digest = await ContentStore(bucket, tmp_path).store(Content("a"))
    await bucket.put(digest, msgspec.json.encode(Content("b")))
    with pytest.raises(NotFound):
        await ContentStore(bucket, tmp_path).read(digest)


@pytest.mark.parametrize(
    "files", [{"../codec.js": ""}, {"a/b.js": ""}, {".hidden": ""}, {"other.yaml": ""}, {"": ""}, {"x": "y" * 600_000}]
)
async def test_files_beside_stay_beside(tmp_path: Path, files: dict[str, str]) -> None:
    """No name leads out of the folder or takes the profile's place; sizes are bounded."""
    with pytest.raises(ConfigError, match="files"):
        await ContentStore(MemoryBucket(), tmp_path).store(Content("a", files))
