"""Commands for the accounts of the search page, and for the passwords of all engines."""

import json
import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from tinytags_tasks.cli.common import AsJson, add_row, make_table, print_table

if TYPE_CHECKING:
    from tinytags_tasks.search.account_file import AccountFile
    from tinytags_tasks.search.accounts import Role

app = typer.Typer()
accounts_app = typer.Typer(no_args_is_help=True)
app.add_typer(accounts_app, name="accounts", help="Accounts of the search page: add, list, change, remove.")


class RoleName(StrEnum):
    """The roles; each may do what those before it may."""

    READER = "reader"
    REVIEWER = "reviewer"
    OPERATOR = "operator"


Name = Annotated[str, typer.Argument(metavar="NAME", help="The account's name.")]
RoleOption = Annotated[
    RoleName,
    typer.Option("--role", help="Readers search, reviewers also correct, operators also take down."),
]
FromInput = Annotated[
    bool, typer.Option("--password-stdin", help="Read the password from standard input instead of making one.")
]


@accounts_app.command()
def add(name: Name, role: RoleOption = RoleName.READER, password_stdin: FromInput = False) -> None:
    """Add an account, and print its password once."""
    given = _password(password_stdin)
    _file().add(name, _role(role), given)
    _say_password(name, given, password_stdin)


@accounts_app.command("list")
def list_accounts(as_json: AsJson = False) -> None:
    """List the accounts and their roles."""
    from tinytags_tasks.settings import load_settings

    rows = [(load_settings().search_user, "operator", "settings")]
    rows += [(name, stored.account.role.label, "accounts") for name, stored in sorted(_file().read().items())]
    if as_json:
        print(json.dumps([{"name": name, "role": role, "from": origin} for name, role, origin in rows], indent=2))
        return
    table = make_table("name", "role", "password")
    for name, role, origin in rows:
        add_row(table, name, role, "TINYTAGS_SEARCH_PASSWORD, or generated" if origin == "settings" else "its own")
    print_table(table)


@accounts_app.command()
def role(name: Name, role: Annotated[RoleName, typer.Argument(metavar="ROLE", help="The new role.")]) -> None:
    """Change what an account may do; it counts at once."""
    _file().set_role(name, _role(role))
    print(f"{name} is now a {role}" if role is not RoleName.OPERATOR else f"{name} is now an {role}")


@accounts_app.command()
def password(name: Name, password_stdin: FromInput = False) -> None:
    """Give an account a new password, and print it once; the old one stops working at once."""
    given = _password(password_stdin)
    _file().set_password(name, given)
    _say_password(name, given, password_stdin)


@accounts_app.command()
def remove(name: Name) -> None:
    """Remove an account; what its owner said of pictures stays."""
    _file().remove(name)
    print(f"removed {name}")


def _file() -> "AccountFile":
    from tinytags_tasks.search.account_file import AccountFile
    from tinytags_tasks.settings import load_settings

    return AccountFile(load_settings())


def _role(name: RoleName) -> "Role":
    from tinytags_tasks.search.accounts import Role

    return Role[name.upper()]


def _password(from_input: bool) -> str:
    from tinytags_tasks.search.account_file import generate_password

    return sys.stdin.readline().rstrip("\r\n") if from_input else generate_password()


def _say_password(name: str, password: str, from_input: bool) -> None:
    print(f"{name} can sign in now" if from_input else f"{name} can sign in with the password {password}")


@app.command()
def passwords() -> None:
    """Show the users and passwords of Airflow, the search page and Solr; accounts' passwords are shown only once."""
    from tinytags_tasks.errors import BadInputError
    from tinytags_tasks.secrecy import without_password
    from tinytags_tasks.settings import load_settings

    settings = load_settings()
    table = make_table("of", "address", "user", "password")
    for what, address, user, name in (
        ("Airflow", settings.airflow_page, settings.airflow_user, "airflow_password"),
        ("Airflow", settings.airflow_page, "operator", "airflow_operator_password"),
        ("Airflow", settings.airflow_page, "viewer", "airflow_viewer_password"),
        ("search page", settings.search_page, settings.search_user, "search_password"),
        ("Solr", settings.solr_url, settings.solr_admin_user, "solr_admin_password"),
        ("Solr", settings.solr_url, settings.solr_writer_user, "solr_writer_password"),
        ("Solr", settings.solr_url, settings.solr_reader_user, "solr_reader_password"),
    ):
        try:
            password = settings.password(name)
        except BadInputError:  # neither set nor generated: that engine has no such user, or was never started
            continue
        add_row(table, what, without_password(address or ""), user, password)
    if not table.row_count:
        raise BadInputError(f"no passwords are set or in {settings.secrets_folder}: run `tinytags up`")
    print_table(table)
