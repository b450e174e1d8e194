"""What `import flq` offers a program (flq/__init__.py has the list). Nothing in FLQ imports this
package.

It runs on Python 3.6 as a worker does; what needs a newer one says so when it is called.
"""
