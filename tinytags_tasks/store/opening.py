"""Opens a store from its address."""

from dataclasses import replace

from tinytags_tasks.store.protocol import Storage, StoreAddress


def open_store(address: StoreAddress) -> Storage:
    """Open the store at an address; no connection is made before the first call."""
    if not address.webhdfs_url:
        from tinytags_tasks.store.local import LocalStorage

        return LocalStorage(address.root)
    from tinytags_tasks.store.hdfs import HdfsStorage

    return HdfsStorage(address)


def address_for_workers(address: StoreAddress) -> StoreAddress:
    """Return the address by which Spark's workers open a store: with Kerberos by a token, as they have no ticket."""
    if not address.kerberos:
        return address
    from tinytags_tasks.store.hdfs import HdfsStorage

    return replace(address, token=HdfsStorage(address).delegation_token())
