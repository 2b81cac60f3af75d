# A gateway as a Nomad job, with the image of packaging/container on the network of its host:
#   nomad job run -var address=10.0.0.5:8443 packaging/nomad/consul-tgw.nomad.hcl
# The Consul agent of the host registers it. The token needs what `consul-tgw acl-policy` prints; it is a Nomad variable:
#   nomad var put nomad/jobs/consul-tgw consul_token=... admin_token=$(openssl rand -hex 32)
variable "image" {
  type    = string
  default = "consul-tgw:0.1.0"
}

variable "service" {
  type        = string
  default     = "terminating-gateway"
  description = "The name of the terminating-gateway entry."
}

variable "address" {
  type        = string
  default     = "10.0.0.5:8443"
  description = "Where sidecars reach the gateway: an address of the host."
}

job "consul-tgw" {
  type = "service"

  # A new allocation serves before the former one leaves; both listen on addresses of different hosts.
  update {
    max_parallel     = 1
    min_healthy_time = "10s"
    healthy_deadline = "3m"
    auto_revert      = true
  }

  group "gateway" {
    count = 1

    network {
      mode = "host"

      port "admin" {
        static = 19090
      }
    }

    restart {
      attempts = 10
      interval = "5m"
      delay    = "1s"
      mode     = "delay"
    }

    task "gateway" {
      driver = "docker"
      user   = "65532:65532"

      # Drain delay, timeout and window of the flags below, and a little more.
      kill_signal  = "SIGTERM"
      kill_timeout = "60s"

      config {
        image           = "${var.image}"
        network_mode    = "host"
        readonly_rootfs = true
        cap_drop        = ["all"]
        ulimit {
          nofile = "65536:65536"
        }
        args = [
          "--service=${var.service}",
          "--address=${var.address}",
          "--admin-address=127.0.0.1:19090",
          "--runtime-dir=${NOMAD_TASK_DIR}/run",
          "--access-log=-",
          "--audit-log=${NOMAD_ALLOC_DIR}/data/audit.log",
          "--log-format=json",
          "--drain-delay=5",
          "--drain-timeout=30",
        ]
      }

      template {
        destination = "${NOMAD_SECRETS_DIR}/consul.env"
        env         = true
        change_mode = "restart"
        data        = <<EOT
{{ with nomadVar "nomad/jobs/consul-tgw" }}
CONSUL_HTTP_TOKEN={{ .consul_token }}
CONSUL_TGW_ADMIN_TOKEN={{ .admin_token }}
{{ end }}
EOT
      }

      env {
        CONSUL_HTTP_ADDR = "127.0.0.1:8500"
      }

      # Nomad's own view of it, for updates; the mesh sees the registration that the gateway makes.
      service {
        provider = "nomad"
        name     = "consul-tgw-admin"
        port     = "admin"

        check {
          type     = "http"
          path     = "/ready"
          interval = "5s"
          timeout  = "2s"
        }
      }

      resources {
        cpu    = 1000
        memory = 512
      }
    }
  }
}
