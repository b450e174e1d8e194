"""What a run leaves for people: its files, a workbook, pictures, tables, and the bar that a
terminal shows meanwhile.

run_files, terminal and progress need the standard library only.
"""
