"""What every room uses: options, registries, files, pictures, logs, processes.

May import nothing else of the package.
"""
