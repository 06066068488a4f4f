// The one executable: `daemon` is the daemon, every other word is the CLI's.

const words = process.argv.slice(2);
if (words[0] === "daemon") {
  const { main } = await import("./daemon.ts");
  process.exit(await main(words.slice(1)));
}
const { main } = await import("./cli.ts");
process.exitCode = await main(words);

export {};
