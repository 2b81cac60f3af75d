# What servers need to be a federation, besides what all agents have. Sourced, never run; needs lib/consul.sh.
# shellcheck shell=bash

RELAY_PORT=8444

# federation_settings: nothing for clusters that are peered.
federation_settings() {
    local peers gateways
    case $LAB_FEDERATION in
        wan)
            need LAB_WAN_ADDRESS LAB_PEER_SERVERS_WAN
            read -ra peers <<<"$LAB_PEER_SERVERS_WAN"
            cat <<HCL
# Servers are reached by their own on one network and by the others on another.
bind_addr = "0.0.0.0"
advertise_addr = "$LAB_ADDRESS"
advertise_addr_wan = "$LAB_WAN_ADDRESS"
retry_join_wan = $(hcl_list "${peers[@]}")
retry_interval_wan = "2s"
HCL
            ;;
        gateways)
            cat <<HCL
connect { enable_mesh_gateway_wan_federation = true }
# The first attempt comes before there is a gateway.
retry_interval_wan = "2s"
HCL
            if [[ $LAB_DATACENTER != "$LAB_PRIMARY" ]]; then
                need LAB_MESH_GATEWAYS
                read -ra gateways <<<"$LAB_MESH_GATEWAYS"
                cat <<HCL
# By way of relay.sh: this host has no way to the WAN, and its own gateways need a CA that it gets over there.
primary_gateways = $(hcl_list "${gateways[@]/%/:$RELAY_PORT}")
primary_gateways_interval = "2s"
HCL
            fi
            ;;
    esac
    if [[ $LAB_FEDERATION != peering && $LAB_DATACENTER != "$LAB_PRIMARY" ]]; then
        cat <<HCL
acl {
  enable_token_replication = true
  tokens { replication = "$(<"$LAB_SECRETS/replication.token")" }
}
HCL
    fi
}
