# Prints what Vagrant itself makes of the Vagrantfile in the folder ARGV[0], as JSON.
require "json"
require "vagrant"

environment = Vagrant::Environment.new(cwd: ARGV[0])
machines = environment.machine_names.to_h do |name|
  machine = environment.machine(name, :virtualbox)
  vm = machine.config.vm
  [name, {
    box: vm.box,
    hostname: vm.hostname,
    networks: vm.networks.map { |kind, options| options.merge(kind: kind) },
    scripts: vm.provisioners.map do |one|
      { name: one.name, run: one.run, environment: one.config.env, inline: one.config.inline }
    end,
    folders: vm.synced_folders.values,
    customizations: machine.provider_config.customizations,
    linked_clone: machine.provider_config.linked_clone,
    triggers: machine.config.trigger.before_triggers.map { |one| { command: one.command } },
  }]
end
puts JSON.generate(machines)
