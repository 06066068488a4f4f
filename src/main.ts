// The one executable: `daemon` is the daemon, and so is what begins with an option by which the existing
// orchestrator is started; every other word is the CLI's.

const words = process.argv.slice(2);
const isNamed = words[0] === "daemon";
if (isNamed || /^--(control|ipc|telemetry)-socket(=|$)/.test(words[0] ?? "")) {
  const { main } = await import("./daemon.ts");
  process.exit(await main(isNamed ? words.slice(1) : words));
}
const { main } = await import("./cli.ts");
process.exitCode = await main(words);

export {};
