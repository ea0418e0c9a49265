"""One plan, several outputs, one file each: Plan -> text; pure."""
