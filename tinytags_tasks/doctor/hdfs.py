"""HDFS: the NameNodes, safe mode, DataNodes and copies, and whether the store can be written and read."""

import json
import os
import socket
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

from tinytags_tasks.doctor.finding import Area, Finding, gigabytes
from tinytags_tasks.doctor.probe import probe_store
from tinytags_tasks.errors import BadInputError, EngineDownError
from tinytags_tasks.runtime import Runtime
from tinytags_tasks.secrecy import without_password
from tinytags_tasks.services.engine import RefusedError, get_json
from tinytags_tasks.services.jars import locked_jars
from tinytags_tasks.store.kerberos import KerberosError, find_ticket
from tinytags_tasks.store.protocol import Storage

LOW_BYTES = 10_000_000_000
"""With less free space, a store of a few million images does not fit."""

_SHORT_SECONDS = 3600
"""A ticket that is valid for less is not renewed by anybody, or was got long ago."""

_area = Area("hdfs")


def examine_hdfs(runtime: Runtime) -> Iterator[Finding]:
    """Yield what would make reads and writes of the store fail."""
    urls = [url.strip().rstrip("/") for url in runtime.settings.address("webhdfs_url").split(";")]
    kerberos = runtime.settings.hdfs_kerberos
    if kerberos:
        ticket = list(_area.each("kerberos", _ticket))
        yield from ticket
        if _lacks_kerberos(ticket):
            return
    name_nodes = list(_area.each("NameNode", lambda: _name_nodes(urls, kerberos, runtime.settings.store)))
    yield from name_nodes
    if _lacks_kerberos(name_nodes):
        return
    yield from _area.each("rights", lambda: _write_and_read(runtime.storage))
    yield from _area.each("free space", lambda: _free_space(runtime.storage))


def _lacks_kerberos(findings: list[Finding]) -> bool:
    """Return whether HDFS lets nobody in, which everything else would say, too."""
    return any(finding.subject == "kerberos" and finding.verdict == "fails" for finding in findings)


def _ticket() -> Iterator[Finding]:
    try:
        owner, seconds = find_ticket()
    except KerberosError as error:
        yield _area.fails("kerberos", str(error))
        return
    text = f"the ticket of {owner} is valid for {seconds / 3600:.1f} h"
    if seconds < _SHORT_SECONDS and not os.environ.get("KRB5_CLIENT_KTNAME"):
        yield _area.warning("kerberos", text, "have it renewed (`k5start`), or name a keytab in KRB5_CLIENT_KTNAME")
    else:
        yield _area.ok("kerberos", text)


def _name_nodes(urls: list[str], kerberos: bool = False, store: str = "/") -> Iterator[Finding]:
    """Yield what every NameNode says of HDFS, or that a gateway is in front of it; one of a pair must be active."""
    silent: list[str] = []
    roles: dict[str, str] = {}
    for url in urls:
        host = without_password(urlsplit(url).netloc)
        try:
            info = _bean(url, "NameNodeInfo", kerberos)
            state = _bean(url, "FSNamesystem", kerberos)
        except RefusedError:
            info, state = {}, {}
        except EngineDownError as error:
            if isinstance(error.__cause__, KerberosError | BadInputError):
                yield _area.fails("kerberos", str(error))
            else:
                silent.append(str(error))
            continue
        if not info:  # HttpFS answers so, and Knox refuses
            yield _area.ok(
                "NameNode", f"{host} does not say what HDFS runs, as a gateway does; `rights` says if it works"
            )
            continue
        roles[host] = str(state.get("tag.HAState") or "active")
        yield from _about(host, roles[host], info, state, is_one_of_several=len(urls) > 1, store=store)
    if roles and "active" not in roles.values():
        yield _none_active(roles, silent, is_alone=len(urls) == 1)
    if len(silent) == len(urls):
        remedy = "start HDFS, or correct TINYTAGS_WEBHDFS_URL"
    else:
        remedy = "start this NameNode, so that it can take over when the other one fails"
    for problem in silent:
        yield _area.warning("NameNode", problem, remedy)


def _none_active(roles: dict[str, str], silent: list[str], *, is_alone: bool) -> Finding:
    text = f"none is active: {', '.join(f'{host} is {role}' for host, role in roles.items())}"
    if is_alone:
        remedy = "name both NameNodes in TINYTAGS_WEBHDFS_URL, such as http://a:9870;http://b:9870"
    elif silent:
        remedy = "start the other one, and see that the failover controllers (ZKFC) run"
    else:
        remedy = "make one active (`hdfs haadmin -failover`), and see that their failover controllers (ZKFC) run"
    return _area.fails("NameNode", text, remedy)


def _bean(url: str, name: str, kerberos: bool) -> dict[str, object]:
    asked = f"Hadoop:service=NameNode,name={name}"
    beans = get_json(f"{url}/jmx", kerberos=kerberos, qry=asked).get("beans") or [{}]
    return dict(beans[0])


def _about(
    host: str, role: str, info: dict[str, object], state: dict[str, object], *, is_one_of_several: bool, store: str
) -> Iterator[Finding]:
    yield _area.ok("NameNode", f"{host} is {role}" if is_one_of_several or role != "active" else f"{host} answers")
    version = str(info.get("SoftwareVersion") or info.get("Version") or "").partition(",")[0]
    client = next(jar.version for jar in locked_jars("hdfs") if jar.artifact == "hadoop-client-minicluster")
    if version.partition(".")[0] in ("", client.partition(".")[0]):
        yield _area.ok("version", f"{host} runs Hadoop {version or 'of an unknown version'}; the client is {client}")
    else:
        yield _area.warning("version", f"{host} runs Hadoop {version}; the client is {client}", "use Hadoop 3")
    if role != "active":
        return
    if safe := str(info.get("Safemode") or ""):
        yield _area.fails(
            "safe mode",
            f"{host}: {' '.join(safe.split())[:300]}",
            "wait until its DataNodes have reported; if its disk was full, make room and run "
            "`hdfs dfsadmin -safemode leave`",
        )
    else:
        yield _area.ok("safe mode", f"{host} is not in safe mode")
    missing, under = (int(str(state.get(name) or 0)) for name in ("MissingBlocks", "UnderReplicatedBlocks"))
    if missing:
        yield _lost(missing, str(info.get("CorruptFiles")), store.rstrip("/"))
    elif under:
        yield _area.warning("blocks", f"{under:,} blocks lack copies", "add DataNodes, or lower the replication")
    live = int(str(state.get("NumLiveDataNodes") or 0))
    if not live:
        yield _area.fails("DataNodes", "none is alive, so nothing can be written", "start a DataNode")
    elif dead := int(str(state.get("NumDeadDataNodes") or 0)):
        yield _area.warning("DataNodes", f"{live} alive, {dead} dead", "start those, or take them out of HDFS")
    else:
        yield _area.ok("DataNodes", f"{live} alive")


def _lost(blocks: int, files: str, store: str) -> Finding:
    """Return what it means that blocks are lost.

    Parameters
    ----------
    blocks
        How many.
    files
        JSON: for each of up to a hundred of them, the NameNode says what block it is, and after a tab of what file.
    store
        The store's folder.
    """
    remedy = "start the DataNodes that hold them"
    try:
        paths = {each.rpartition("\t")[2] for each in json.loads(files)}
    except ValueError:  # a router says N/A
        paths = set()
    if ours := sorted(path for path in paths if path.startswith(f"{store}/")):
        which = f"{', '.join(ours[:3])}{' …' if len(ours) > 3 else ''}"
        return _area.fails(
            "blocks",
            f"{blocks:,} blocks have no copy, some of the store's: {which}",
            f"{remedy}; if they are gone, `tinytags corpus verify` and `tinytags audit` say what to make again",
        )
    return _area.warning(
        "blocks",
        f"{blocks:,} blocks have no copy; HDFS names no file of {store or '/'} among theirs",
        f"{remedy}; `hdfs fsck {store or '/'} -list-corruptfileblocks` says whether the store misses any",
    )


def _write_and_read(storage: Storage) -> Iterator[Finding]:
    began = time.time()
    changed = probe_store(storage, f"doctor-{socket.gethostname()}")
    yield _area.ok("rights", f"wrote, read and deleted a file of the store in {time.time() - began:.1f} s")
    yield _area.clock(changed, began)


def _free_space(storage: Storage) -> Iterator[Finding]:
    free = storage.free_bytes()
    if free is None:
        yield _area.ok("free space", "the gateway does not report it")
    elif free < LOW_BYTES:
        yield _area.warning(
            "free space",
            f"{gigabytes(free)} after replication and the quota",
            "a million 32x32 images need about 8 GB: add a disk, raise the quota, or run `tinytags prune`",
        )
    else:
        yield _area.ok("free space", f"{gigabytes(free)} after replication and the quota")
