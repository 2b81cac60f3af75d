"""Worker processes: started on sockets that outlive them, told every change, replaced and adopted.

``pool.py`` is the entry; ``published.py`` is what all of them must have.
"""
