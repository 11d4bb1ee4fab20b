"""HDFS: one NameNode and one DataNode, from the jars of Hadoop's mini cluster and the client jars in pyspark."""

import json
import shutil
import subprocess
import tempfile
from pathlib import Path
from xml.sax.saxutils import escape

from tinytags_tasks.errors import EngineDownError, FinalError
from tinytags_tasks.private_files import make_folder
from tinytags_tasks.services.engine import Context, Engine, Group, Ports, RefusedError, Waiting, environment, get_json
from tinytags_tasks.services.jars import fetch_jars, locked_jars, pyspark_jars
from tinytags_tasks.services.java import COMMON_OPTIONS
from tinytags_tasks.services.memory import profile_of
from tinytags_tasks.services.ports import LOOPBACK, Port
from tinytags_tasks.services.processes import Launch
from tinytags_tasks.settings import Settings

CLASSES = {
    "namenode": "org.apache.hadoop.hdfs.server.namenode.NameNode",
    "datanode": "org.apache.hadoop.hdfs.server.datanode.DataNode",
}

_FORMATTING = "formatting-"
"""How the names of folders in the NameNode's begin in which it is being formatted."""

LOG = "hadoop.log"
LOG4J = """log4j.rootLogger=WARN,file,console
log4j.logger.org.apache.hadoop.hdfs.server=INFO
log4j.appender.console=org.apache.log4j.ConsoleAppender
log4j.appender.console.target=System.err
log4j.appender.console.threshold=ERROR
log4j.appender.console.layout=org.apache.log4j.PatternLayout
log4j.appender.console.layout.ConversionPattern=%d{ISO8601} %p %c{1}: %m%n
log4j.appender.file=org.apache.log4j.RollingFileAppender
log4j.appender.file.File=${tinytags.log}
log4j.appender.file.MaxFileSize=16MB
log4j.appender.file.MaxBackupIndex=3
log4j.appender.file.layout=org.apache.log4j.PatternLayout
log4j.appender.file.layout.ConversionPattern=%d{ISO8601} %p %c{1}: %m%n
"""


# A DataNode that was silent for ten seconds is asked last, not after ten minutes. With two, one may be away: a file is
# then written to the other.
_OF_SEVERAL = {
    "dfs.namenode.avoid.read.stale.datanode": "true",
    "dfs.namenode.avoid.write.stale.datanode": "true",
    "dfs.namenode.stale.datanode.interval": "10000",
    # 2 x 5 s + 10 x 1 s after its last word, a DataNode counts as dead, and its blocks are copied elsewhere.
    "dfs.namenode.heartbeat.recheck-interval": "5000",
}


def hadoop_xml(properties: dict[str, str]) -> str:
    """Return the text of a Hadoop configuration file."""
    lines = (
        f"  <property><name>{escape(name)}</name><value>{escape(value)}</value></property>"
        for name, value in properties.items()
    )
    return "<configuration>\n" + "\n".join(lines) + "\n</configuration>\n"


def class_path(settings: Settings) -> str:
    """Return the class path of HDFS: the fetched jars, and the Hadoop client that pyspark bundles.

    Raises
    ------
    FinalError
        If pyspark bundles another version.
    """
    version = next(jar.version for jar in locked_jars("hdfs") if jar.artifact == "hadoop-client-minicluster")
    bundled = [pyspark_jars() / f"hadoop-client-{part}-{version}.jar" for part in ("api", "runtime")]
    for jar in bundled:
        if not jar.exists():
            found = sorted(path.name for path in pyspark_jars().glob("hadoop-client-*.jar"))
            raise FinalError(
                f"HDFS {version} needs {jar.name} from pyspark, which bundles {', '.join(found) or 'none'}: "
                "install the pyspark version that this TinyTags requires, or update jars.lock for the installed one"
            )
    return ":".join([f"{fetch_jars(settings, 'hdfs')}/*", *map(str, bundled)])


def _addresses(ports: Ports) -> dict[str, str]:
    return {
        "webhdfs_url": f"http://{LOOPBACK}:{ports['namenode']['http']}",
        "hdfs_url": f"hdfs://{LOOPBACK}:{ports['namenode']['rpc']}",
    }


def _java(context: Context, engine: str, *options: str) -> tuple[str, ...]:
    folder = context.folder(engine)
    profile = profile_of(context.settings)
    megabytes = profile.namenode_megabytes if engine == "namenode" else profile.datanode_megabytes
    return (
        str(context.java),
        *COMMON_OPTIONS,
        # Otherwise half of the CPU time at start would go into compiling code that then runs for seconds a day.
        *(f"-Xmx{megabytes}m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"),
        f"-Dtinytags.log={folder}/{LOG}",
        "-cp",
        f"{folder}/conf:{class_path(context.settings)}",
        CLASSES[engine],
        *options,
    )


def _prepare(context: Context) -> None:
    for engine in CLASSES:
        prepare(context, engine)


def prepare(context: Context, engine: str) -> None:
    """Write what the NameNode or a DataNode needs to start, and format an empty NameNode."""
    fetch_jars(context.settings, "hdfs", lambda text: context.report(f"hdfs: {text}"))
    folder = context.folder(engine)
    conf = make_folder(folder / "conf")
    for name, properties in (("core-site.xml", _core(context, engine)), ("hdfs-site.xml", _hdfs(context))):
        (conf / name).write_text(hadoop_xml(properties))
    (conf / "log4j.properties").write_text(LOG4J)
    data = make_folder(folder / "data")
    if engine == "namenode":
        _format_if_empty(context, data)


def _core(context: Context, engine: str) -> dict[str, str]:
    return {
        "fs.defaultFS": f"hdfs://{context.network.host('namenode')}:{context.ports['namenode']['rpc']}",
        "hadoop.tmp.dir": str(context.folder(engine) / "tmp"),
        # Otherwise Hadoop runs `id` for the groups of a user that the system does not have.
        "hadoop.user.group.static.mapping.overrides": f"{context.settings.hdfs_user}=supergroup;dr.who=;",
    }


def _hdfs(context: Context) -> dict[str, str]:
    node, data = context.ports["namenode"], context.ports["datanode"]
    host, listen = context.network.host("namenode"), context.network.listen
    copies = context.settings.hdfs_replication or 1
    return {
        "dfs.replication": str(copies),
        "dfs.permissions.superusergroup": "supergroup",
        "dfs.namenode.name.dir": (context.folder("namenode") / "data").as_uri(),
        "dfs.namenode.rpc-address": f"{host}:{node['rpc']}",
        "dfs.namenode.rpc-bind-host": listen,
        "dfs.namenode.http-address": f"{host}:{node['http']}",
        "dfs.namenode.http-bind-host": listen,
        # With the default, a restarted NameNode stays in safe mode for half a minute.
        "dfs.namenode.safemode.extension": "1000",
        "dfs.namenode.handler.count": "10",
        "dfs.datanode.data.dir": (context.folder("datanode") / "data").as_uri(),
        "dfs.datanode.hostname": context.network.host("datanode"),
        "dfs.datanode.address": f"{listen}:{data['data']}",
        "dfs.datanode.http.address": f"{listen}:{data['http']}",
        "dfs.datanode.ipc.address": f"{listen}:{data['ipc']}",
        # How soon NameNode and DataNode notice that the other was restarted, in seconds.
        "dfs.heartbeat.interval": "1",
        "dfs.blockreport.initialDelay": "0",
        # How long closing a file waits until it asks again whether its last block is complete. The default of 400 ms
        # is most of the time that a small file takes.
        "dfs.client.block.write.locateFollowingBlock.initial.delay.ms": "20",
        "dfs.client.block.write.locateFollowingBlock.retries": "10",
        # The DataNode retries every half second for 25 s; after that, it sleeps for 5 s between tries.
        "ipc.client.connect.retry.interval": "500",
        "ipc.client.connect.max.retries": "50",
        **(_OF_SEVERAL if copies > 1 else {}),
    }


def _format_if_empty(context: Context, data: Path) -> None:
    """Format a NameNode that has nothing. Its folder never counts as formatted before it is, whenever this is ended."""
    for interrupted in data.glob(f"{_FORMATTING}*"):
        shutil.rmtree(interrupted, ignore_errors=True)  # no NameNode has ever stored anything in it
    # Java may outlive a process that was killed, and go on: hence a name of its own, and what is back is nothing.
    if all(path.name.startswith(_FORMATTING) for path in data.iterdir()):
        begun = Path(tempfile.mkdtemp(prefix=_FORMATTING, dir=data))
        _format(context, begun)
        (begun / "current").rename(data / "current")
        shutil.rmtree(begun)


def _format(context: Context, folder: Path) -> None:
    done = subprocess.run(
        _java(context, "namenode", "-D", f"dfs.namenode.name.dir={folder.as_uri()}", "-format", "-nonInteractive"),
        env=_environment(context),
        cwd=context.folder("namenode"),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise FinalError(f"formatting HDFS failed with exit code {done.returncode}:\n{done.stderr[-2000:]}")


def _environment(context: Context) -> dict[str, str]:
    return environment(context, HADOOP_USER_NAME=context.settings.hdfs_user)


def _launch(engine: str, context: Context) -> Launch:
    return Launch(_java(context, engine), _environment(context))


def _namenode_unready(context: Context) -> str | None:
    return webhdfs_unready(context.settings)


def _datanode_unready(context: Context) -> str | None:
    try:
        own = get_json(
            f"http://{LOOPBACK}:{context.ports['datanode']['http']}/jmx",
            qry="Hadoop:service=DataNode,name=DataNodeInfo",
        )["beans"]
        # The bean exists before its values do.
        actors = json.loads(own[0].get("BPServiceActorInfo") or "[]") if own else []
        if not actors or any(actor["ActorState"] != "RUNNING" for actor in actors):
            return Waiting("it has not registered with the NameNode")
    except EngineDownError as error:
        return str(error)
    try:
        beans = get_json(
            f"{context.settings.address('webhdfs_url')}/jmx", qry="Hadoop:service=NameNode,name=NameNodeInfo"
        )["beans"]
    except EngineDownError as error:
        return Waiting(error)
    if not beans or not {"Safemode", "LiveNodes"} <= beans[0].keys():
        return Waiting("the NameNode is starting")
    if beans[0]["Safemode"]:
        return Waiting("the NameNode is in safe mode")
    return None if json.loads(beans[0]["LiveNodes"]) else Waiting("the NameNode knows no live DataNode")


def webhdfs_unready(settings: Settings) -> str | None:
    """Return why WebHDFS does not list its root; None if it does. Of several NameNodes, the active one does."""
    reason: str | None = None
    user = {} if settings.hdfs_kerberos else {"user.name": settings.hdfs_user}
    for url in settings.address("webhdfs_url").split(";"):
        try:
            get_json(f"{url.rstrip('/')}/webhdfs/v1/", kerberos=settings.hdfs_kerberos, op="LISTSTATUS", **user)
        except RefusedError as error:  # it reads its image
            reason = Waiting(error)
        except EngineDownError as error:
            reason = reason or str(error)
        else:
            return None
    return reason


GROUP = Group(
    name="hdfs",
    engines=(
        Engine(
            name="namenode",
            launch=lambda context: _launch("namenode", context),
            unready=_namenode_unready,
            own_log=LOG,
            ports=(Port("rpc", 8020), Port("http", 9870)),
            address="webhdfs_url",
        ),
        Engine(
            name="datanode",
            launch=lambda context: _launch("datanode", context),
            unready=_datanode_unready,
            own_log=LOG,
            ports=(Port("data"), Port("http"), Port("ipc")),
        ),
    ),
    settings=("webhdfs_url", "hdfs_url"),
    addresses=_addresses,
    unreachable=webhdfs_unready,
    prepare=_prepare,
)
