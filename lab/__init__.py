"""The lab of several datacenters: the hosts of ``vagrant/topology.yaml`` as network namespaces of this machine."""
