"""Solr in cloud mode: one Jetty with an embedded ZooKeeper, started from jars alone."""

import time
from collections.abc import Callable, Collection
from typing import Any

from tinytags_tasks.clients.solr import SolrClient
from tinytags_tasks.clients.solr_state import LOG_ACTIVE, UPDATE_LOG_STATE, leaderless_by_owner
from tinytags_tasks.errors import TinyTagsError, TransientError
from tinytags_tasks.private_files import make_folder, write_atomically
from tinytags_tasks.services.engine import Context, Engine, Group, Ports, Waiting, environment
from tinytags_tasks.services.jars import fetch_jars
from tinytags_tasks.services.java import COMMON_OPTIONS
from tinytags_tasks.services.memory import profile_of
from tinytags_tasks.services.ports import LOOPBACK, Port
from tinytags_tasks.services.processes import Launch
from tinytags_tasks.services.solr_security import make_logins, security_json
from tinytags_tasks.settings import Login, Settings

ZOOKEEPER_OFFSET = 1000
"""Offset of ZooKeeper's port from Solr's, by Solr's convention."""

CLIENT_TIMEOUT_MILLISECONDS = 4000
"""A restart after kill -9 waits until the session of the dead node has expired in ZooKeeper."""

SECOND_CHECK_SECONDS = 1.0

JETTY_XML = """<?xml version="1.0"?>
<!DOCTYPE Configure PUBLIC "-//Jetty//Configure//EN" "https://www.eclipse.org/jetty/configure_10_0.dtd">
<Configure id="Server" class="org.eclipse.jetty.server.Server">
  <New id="httpConfig" class="org.eclipse.jetty.server.HttpConfiguration">
    <Set name="sendServerVersion">false</Set>
    <Set name="outputBufferSize">32768</Set>
    <Set name="requestHeaderSize">16384</Set>
  </New>
  <!-- ZooKeeper gets security.json before Solr starts, so that Solr never answers without a login. -->
  <New class="org.apache.solr.common.cloud.SolrZkClient$Builder">
    <Call name="withUrl"><Arg><SystemProperty name="zkHost"/></Arg></Call>
    <Call name="withTimeout">
      <Arg type="int">60000</Arg><Arg><Get class="java.util.concurrent.TimeUnit" name="MILLISECONDS"/></Arg>
    </Call>
    <Call name="build">
      <Call name="makePath">
        <Arg>/security.json</Arg>
        <Arg><Call class="java.nio.file.Files" name="readAllBytes"><Arg>
          <Call class="java.nio.file.Path" name="of"><Arg><SystemProperty name="solr.security"/></Arg></Call>
        </Arg></Call></Arg>
        <Arg type="boolean">false</Arg>
        <Arg type="boolean">true</Arg>
      </Call>
      <Call name="close"/>
    </Call>
  </New>
  <Call name="addConnector"><Arg>
    <New class="org.eclipse.jetty.server.ServerConnector">
      <Arg name="server"><Ref refid="Server"/></Arg>
      <Arg name="factories"><Array type="org.eclipse.jetty.server.ConnectionFactory">
        <Item><New class="org.eclipse.jetty.server.HttpConnectionFactory">
          <Arg name="config"><Ref refid="httpConfig"/></Arg>
        </New></Item>
        <Item><New class="org.eclipse.jetty.http2.server.HTTP2CServerConnectionFactory">
          <Arg name="config"><Ref refid="httpConfig"/></Arg>
        </New></Item>
      </Array></Arg>
      <Set name="host"><SystemProperty name="jetty.host"/></Set>
      <Set name="port"><SystemProperty name="jetty.port"/></Set>
      <Set name="idleTimeout">120000</Set>
    </New>
  </Arg></Call>
  <Set name="handler">
    <New class="org.eclipse.jetty.webapp.WebAppContext">
      <Set name="contextPath">/solr</Set>
      <Set name="resourceBase"><SystemProperty name="solr.webroot"/></Set>
      <Set name="descriptor"><SystemProperty name="solr.webxml"/></Set>
      <Set name="parentLoaderPriority">true</Set>
      <Set name="throwUnavailableOnStartupException">true</Set>
    </New>
  </Set>
  <Set name="stopAtShutdown">true</Set>
  <Set name="stopTimeout">15000</Set>
</Configure>
"""

BEFORE_SECURITY = "  <!-- ZooKeeper gets security.json"

OWN_ZOOKEEPER = """  <New class="org.apache.solr.cloud.SolrZkServer">
    <Arg type="String">true</Arg>
    <Arg/>
    <Arg><New class="java.io.File"><Arg><SystemProperty name="zkServerDataDir"/></Arg></New></Arg>
    <Arg><SystemProperty name="zkServerConfDir"/></Arg>
    <Arg type="int"><SystemProperty name="jetty.port"/></Arg>
    <Call name="parseConfig"/>
    <Call name="start"/>
  </New>
"""
"""The part of Jetty's configuration that starts ZooKeeper in the same process."""

WEB_XML = """<?xml version="1.0" encoding="UTF-8"?>
<web-app xmlns="http://xmlns.jcp.org/xml/ns/javaee" version="4.0" metadata-complete="true">
  <context-param>
    <param-name>org.eclipse.jetty.servlet.Default.dirAllowed</param-name><param-value>false</param-value>
  </context-param>
  <listener><listener-class>org.apache.solr.servlet.CoreContainerProvider</listener-class></listener>
  <filter>
    <filter-name>SolrRequestFilter</filter-name>
    <filter-class>org.apache.solr.servlet.SolrDispatchFilter</filter-class>
    <async-supported>true</async-supported>
  </filter>
  <filter-mapping><filter-name>SolrRequestFilter</filter-name><url-pattern>/*</url-pattern></filter-mapping>
</web-app>
"""

SOLR_XML = """<solr>
  <solrcloud>
    <str name="host">${host}</str>
    <int name="hostPort">${jetty.port}</int>
    <str name="hostContext">solr</str>
    <int name="zkClientTimeout">${zkClientTimeout}</int>
  </solrcloud>
</solr>
"""

# The shortest session timeout is two ticks.
ZOO_CFG = """tickTime=1000
clientPortAddress={listen}
admin.enableServer=false
autopurge.snapRetainCount=3
autopurge.purgeInterval=24
"""

LOG4J2 = """<Configuration status="error">
  <Appenders>
    <RollingFile name="file" fileName="${sys:solr.log.dir}/solr.log" filePattern="${sys:solr.log.dir}/solr.log.%i">
      <PatternLayout pattern="%d{ISO8601} %p (%t) %c{1.} %m%n"/>
      <SizeBasedTriggeringPolicy size="32 MB"/>
      <DefaultRolloverStrategy max="3"/>
    </RollingFile>
    <Console name="console" target="SYSTEM_ERR"><PatternLayout pattern="%d{ISO8601} %p %c{1.} %m%n"/></Console>
  </Appenders>
  <Loggers>
    <Logger name="org.apache.zookeeper" level="WARN"/>
    <Logger name="org.apache.solr.update.processor.LogUpdateProcessorFactory" level="WARN"/>
    <Logger name="org.apache.solr.core.SolrCore.Request" level="WARN"/>
    <Root level="INFO"><AppenderRef ref="file"/><AppenderRef ref="console" level="ERROR"/></Root>
  </Loggers>
</Configuration>
"""


def solr_is_ready(url: str, admin: Login | None = None) -> str | None:
    """Return why a Solr server is not ready; None if it is.

    After a kill, Solr answers queries before it has replayed its logs. Counts are too low then, and a commit answers
    200 but is ignored. So Solr is ready only once its replicas are loaded and active and their logs are replayed. For
    an instant before the replay starts, the state from before the kill looks ready, so two checks must succeed.

    Parameters
    ----------
    url
        Solr's address with its path, ``http://host:8983/solr``.
    admin
        The login to use; None if Solr needs none.
    """
    solr = SolrClient(url, admin=admin, pauses_seconds=(), timeout_seconds=5)
    problem = _not_ready_reason(solr)
    if problem is None:
        time.sleep(SECOND_CHECK_SECONDS)
        problem = _not_ready_reason(solr)
    return problem


def _not_ready_reason(solr: SolrClient) -> str | None:
    return _problem(solr, _own_problem)


def _problem(solr: SolrClient, ask: Callable[[SolrClient], str | None]) -> str | None:
    """Return what a question finds wrong with a Solr, or why it does not answer."""
    try:
        return ask(solr)
    except TinyTagsError as error:
        return str(error) if isinstance(error, TransientError) else Waiting(error)
    except (KeyError, TypeError, AttributeError) as error:
        return f"{solr.url} does not answer like Solr ({error!r})"


def _own_problem(solr: SolrClient) -> str | None:
    system = solr.request("admin/info/system")
    cores = solr.request("admin/cores", {"action": "STATUS", "indexInfo": "false"})
    if cores["initFailures"]:
        return Waiting(f"cores that did not load: {', '.join(cores['initFailures'])}")
    if system.get("mode") == "solrcloud":
        cluster = solr.request("admin/collections", {"action": "CLUSTERSTATUS"})["cluster"]
        if waiting := inactive_replicas(cluster, system["node"], cores["status"]):
            return Waiting(f"replicas that are not active: {', '.join(waiting)}")
    replaying = [core for core, state in solr.core_figures(UPDATE_LOG_STATE).items() if state != LOG_ACTIVE]
    return Waiting(f"logs that are being replayed: {', '.join(replaying)}") if replaying else None


def inactive_replicas(cluster: dict[str, Any], node: str, loaded: Collection[str]) -> list[str]:
    """Return the replicas of a node that are not loaded, or not active according to Solr's CLUSTERSTATUS."""
    if node not in cluster.get("live_nodes", ()):
        return [f"all of {node}, which is not among the live nodes"]
    return [
        f"{collection}/{name} ({replica['state']})"
        for collection, state in cluster.get("collections", {}).items()
        for shard in state["shards"].values()
        for name, replica in shard["replicas"].items()
        if replica["node_name"] == node and (replica["state"] != "active" or replica["core"] not in loaded)
    ]


def _prepare(context: Context) -> None:
    fetch_jars(context.settings, "solr", lambda text: context.report(f"solr: {text}"))
    folder = context.folder("solr")
    conf = make_folder(folder / "conf")
    make_folder(conf / "webroot")
    (conf / "zoo.cfg").write_text(ZOO_CFG.format(listen=context.network.listen))
    own = "" if "zookeeper" in context.network.hosts else OWN_ZOOKEEPER
    (conf / "jetty.xml").write_text(JETTY_XML.replace(BEFORE_SECURITY, own + BEFORE_SECURITY))
    (conf / "web.xml").write_text(WEB_XML)
    (conf / "log4j2.xml").write_text(LOG4J2)
    (make_folder(folder / "data") / "solr.xml").write_text(SOLR_XML)
    make_folder(folder / "log")
    write_atomically(conf / "security.json", security_json(make_logins(context.settings)))


def zookeeper(context: Context) -> str:
    """Return the address of ZooKeeper: Solr's own, unless it is a host of its own."""
    port = (
        context.ports["zookeeper"]["client"]
        if "zookeeper" in context.network.hosts
        else (context.ports["solr"]["http"] + ZOOKEEPER_OFFSET)
    )
    return f"{context.network.host('zookeeper')}:{port}"


def _launch(context: Context) -> Launch:
    folder = context.folder("solr")
    conf = folder / "conf"
    properties = {
        "solr.solr.home": folder / "data",
        "solr.install.dir": conf,
        "solr.log.dir": folder / "log",
        "solr.webroot": conf / "webroot",
        "solr.webxml": conf / "web.xml",
        "log4j2.configurationFile": conf / "log4j2.xml",
        "jetty.port": context.ports["solr"]["http"],
        "jetty.host": context.network.listen,
        "host": context.network.host("solr"),
        "zkHost": zookeeper(context),
        "zkServerDataDir": folder / "data" / "zoo_data",
        "zkServerConfDir": conf,
        "solr.security": conf / "security.json",
        "zkClientTimeout": CLIENT_TIMEOUT_MILLISECONDS,
    }
    command = (
        str(context.java),
        *COMMON_OPTIONS,
        *("-Xms256m", f"-Xmx{profile_of(context.settings).solr_megabytes}m", "-XX:+UseG1GC"),
        *(f"-D{name}={value}" for name, value in properties.items()),
        *("-cp", f"{fetch_jars(context.settings, 'solr')}/*"),
        *("org.eclipse.jetty.xml.XmlConfiguration", str(conf / "jetty.xml")),
    )
    return Launch(command, environment(context))


def launch_zookeeper(context: Context) -> Launch:
    """Return how to start ZooKeeper in a process of its own, from Solr's jars; only containers do."""
    folder = make_folder(context.folder("zookeeper"))
    (folder / "zoo.cfg").write_text(
        ZOO_CFG.format(listen=context.network.listen)
        + f"dataDir={make_folder(folder / 'data')}\nclientPort={context.ports['zookeeper']['client']}\n"
    )
    (folder / "log4j2.xml").write_text(LOG4J2)
    command = (
        str(context.java),
        *COMMON_OPTIONS,
        *("-Xmx128m", "-XX:+UseSerialGC", f"-Dsolr.log.dir={folder}"),
        f"-Dlog4j2.configurationFile={folder / 'log4j2.xml'}",
        *("-cp", f"{fetch_jars(context.settings, 'solr')}/*"),
        *("org.apache.zookeeper.server.quorum.QuorumPeerMain", str(folder / "zoo.cfg")),
    )
    return Launch(command, environment(context))


def _addresses(ports: Ports) -> dict[str, str]:
    return {"solr_url": f"http://{LOOPBACK}:{ports['solr']['http']}/solr", "solr_passwords": "generated"}


def _unready(context: Context) -> str | None:
    # Created here too, for a Solr that was started before it had users: it has no passwords, and accepts any.
    return solr_is_ready(context.settings.address("solr_url"), make_logins(context.settings)["admin"])


def _unreachable(settings: Settings) -> str | None:
    """Return why a Solr of others cannot be used; while TinyTags' shards have leaders, the rest may be down."""
    solr = SolrClient(
        settings.address("solr_url"), admin=settings.solr_login("admin"), pauses_seconds=(), timeout_seconds=5
    )
    return _problem(solr, lambda solr: _problem_of_others(solr, settings.alias))


def _problem_of_others(solr: SolrClient, alias: str) -> str | None:
    if solr.request("admin/info/system").get("mode") != "solrcloud":
        return f"{solr.url} runs without ZooKeeper: start Solr in cloud mode"
    cluster = solr.request("admin/collections", {"action": "CLUSTERSTATUS"})["cluster"]
    leaderless, _ = leaderless_by_owner(cluster, solr.aliases().get(alias, ""))
    return Waiting(f"shards without a live leader: {', '.join(leaderless)}") if leaderless else None


GROUP = Group(
    name="solr",
    engines=(
        Engine(
            name="solr",
            launch=_launch,
            unready=_unready,
            # The port is part of the node's name, which every stored replica contains.
            ports=(Port("http", 8983, companion=ZOOKEEPER_OFFSET, is_identity=True),),
            address="solr_url",
            own_log="log/solr.log",
        ),
    ),
    settings=("solr_url",),
    addresses=_addresses,
    unreachable=_unreachable,
    prepare=_prepare,
)
