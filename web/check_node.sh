# Says what the page needs to be built, and fails, where that is not there.
if ! command -v npm > /dev/null; then
    echo "npm is not here: install Node.js 20.19 or newer, which brings it (nodejs.org; Debian 13 has it)" >&2
    exit 1
fi
node -e 'const [major, minor] = process.versions.node.split(".").map(Number);
if (major * 100 + minor < 2019) {
  console.error(`Node.js is ${process.version}: the page needs 20.19 or newer (nodejs.org; Debian 13 has it)`);
  process.exit(1);
}'
