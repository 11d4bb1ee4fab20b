# One image that plays every role: docker-compose.yml names the roles by their commands.
#
# BASE may be any Debian with Python 3.11 and Java 17. Packages come from the distribution's archive, PyPI and Maven
# Central unless the build arguments name mirrors. Everything from PyPI and Maven Central is checked against the locks.
ARG BASE=debian:bookworm-slim

FROM ${BASE} AS system
# curl is for health checks; tini passes signals on, and collects what engines leave behind.
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
        ca-certificates curl libgomp1 openjdk-17-jre-headless postgresql-15 procps python3 tini \
    && rm -rf /var/lib/apt/lists/* /var/lib/postgresql \
    && useradd --uid 10001 --create-home tinytags

FROM system AS packages
RUN apt-get update && apt-get install -y --no-install-recommends python3-venv && rm -rf /var/lib/apt/lists/*
ARG PIP_INDEX_URL
ENV PIP_DISABLE_PIP_VERSION_CHECK=1
COPY containers/runtime_lock.py /build/
WORKDIR /build
COPY requirements.lock main.lock
COPY containers/requirements.lock more.lock
RUN --mount=type=cache,target=/root/.cache/pip \
    python3 runtime_lock.py main.lock > runtime.lock \
    && python3 -m venv --without-pip /opt/venv \
    && python3 -m venv /opt/pip \
    && /opt/pip/bin/pip --python /opt/venv/bin/python install --no-deps --require-hashes -r runtime.lock -r more.lock \
    && find /opt/venv -type d -name tests -path '*/pandas/*' -prune -exec rm -rf {} +

FROM packages AS jars
ARG TINYTAGS_MAVEN_REPOSITORY
COPY tinytags_tasks/errors.py tinytags_tasks/parts.py tinytags_tasks/private_files.py tinytags_tasks/secrecy.py tinytags_tasks/settings.py \
  tinytags_tasks/
COPY tinytags_tasks/services/jars.py tinytags_tasks/services/java.py tinytags_tasks/services/jars.lock tinytags_tasks/services/
RUN --mount=type=cache,target=/cache \
    TINYTAGS_CACHE=/cache /opt/venv/bin/python -c "from tinytags_tasks.services.jars import *; \
s = Settings(); [fetch_jars(s, engine) for engine in ('hdfs', 'solr')]" \
    && mkdir /opt/cache && cp -r /cache/jars /opt/cache/ && chmod -R a+rX /opt/cache

FROM system
COPY --from=packages /opt/venv /opt/venv
COPY --from=jars /opt/cache /opt/cache
# What the engines keep, and what commands read and write. A volume that is mounted here for the first time gets this owner.
RUN install -d -o tinytags -g tinytags -m 700 /var/lib/tinytags /var/lib/tinytags/secrets /images /out
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/opt/tinytags \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    TINYTAGS_CACHE=/opt/cache \
    TINYTAGS_HOME=/var/lib/tinytags
WORKDIR /opt/tinytags
COPY solr solr
COPY plugins plugins
COPY dags dags
COPY tinytags_tasks tinytags_tasks
USER tinytags
ENTRYPOINT ["tini", "--", "python", "-m", "tinytags_tasks.services.container"]
