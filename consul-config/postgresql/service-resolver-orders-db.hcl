# How long one address may take to accept. A name of a database that fails over may lead to one that is gone.
Kind           = "service-resolver"
Name           = "orders-db"
ConnectTimeout = "3s"
