"""The floor of every quick command: a typer app of two commands that prints a line."""

import typer

app = typer.Typer()


@app.command()
def hello(name: str = "world") -> None:
    """Greet."""
    print(f"hello {name}")


@app.command()
def bye() -> None:
    """Take leave."""
    print("bye")


if __name__ == "__main__":
    app()
