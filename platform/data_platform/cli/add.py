"""x"""
import typer
app = typer.Typer()
@app.command()
def source() -> None:
    """x"""
def init() -> None:
    """x"""
