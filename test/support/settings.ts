// What `Info` tells of an instance whose settings nobody has given (P-48), spelled out: not taken from the program.

export const DEFAULT_SETTINGS = {
  args: [],
  env: [],
  cwd: null,
  restart: "no",
  restart_delay_ms: 100,
  stop_signal: "SIGINT",
  stop_grace_ms: 5_000,
  priority: null,
  owner: null,
} as const;
