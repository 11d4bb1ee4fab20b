"""Commands for nets: list, show, import and train them."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from tinytags_tasks.cli.common import AsJson, add_row, clients, make_table, print_table, refuse_damaged
from tinytags_tasks.cli.net_import import import_net
from tinytags_tasks.cli.net_train import train_net

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tinytags_tasks.store.net_records import NetCard

app = typer.Typer()
nets_app = typer.Typer(no_args_is_help=True)
app.add_typer(nets_app, name="nets", help="Nets, which turn an image into an embedding: list, show, import, train.")
nets_app.command("import")(import_net)
nets_app.command("train")(train_net)

Net = Annotated[str, typer.Argument(metavar="NET", help="A net's name, version, or the version's beginning.")]


@nets_app.command("list")
def list_nets(as_json: AsJson = False) -> None:
    """List the nets that models can see through, the latest at the end; exit code 1 if a card is damaged."""
    from tinytags_tasks.nets.catalogue import list_nets

    damaged: list[str] = []
    cards = list_nets(clients().storage, on_damage=damaged.append)
    if as_json:
        print(json.dumps([card.model_dump() for card in cards], indent=2))
    elif cards:
        _print_nets(cards)
    refuse_damaged(damaged)


def _print_nets(cards: "Sequence[NetCard]") -> None:
    from tinytags_tasks.nets.description import background, cifar10

    table = make_table("net", "size", "dimensions", "arithmetic", "origin", "CIFAR-10", "background")
    for card in cards:
        size = f"{card.height}x{card.width}"
        measured = (cifar10(card) or "-", background(card) or "-")
        add_row(table, card.version, size, card.dimensions, card.arithmetic, card.origin, *measured)
    # A version is there to be copied, so it is never cut.
    table.columns[0].min_width = max(len(card.version) for card in cards)
    print_table(table)
    print("CIFAR-10: share of its test set that a logistic head on the net's embeddings gets right")


@nets_app.command()
def show(net: Net, as_json: AsJson = False) -> None:
    """Show everything on a net's card, including what it learned from and on what terms."""
    from tinytags_tasks.nets.catalogue import check_net, load_net_card
    from tinytags_tasks.nets.description import describe_net

    storage = clients().storage
    card = load_net_card(storage, net)
    check_net(storage, card)  # else figures would be shown of a file that has been replaced
    if as_json:
        print(json.dumps(card.model_dump(), indent=2))
        return
    table = make_table("", card.version)
    for heading, text in describe_net(card).items():
        add_row(table, heading, text)
    print_table(table)
