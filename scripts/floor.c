/* The floor: a tree like memhpfs's, served by the least C that libfuse allows.
 *
 * scripts/bench.py compares memhpfs with it.  One thread, no model: every text is a constant.  Names and attributes are
 * cached for a day, every descriptor is direct_io, permission bits are checked by the kernel, as in memhpfs.
 *
 * usage: floor DIR BLOCKS     serves until SIGINT or SIGTERM
 *
 * An inode number says what the file is: below 16 a directory above the blocks or one of their files; else
 * (block + 1) * 16 + the number of the file in the directory of the block, 0 for the directory itself.
 */
#define FUSE_USE_VERSION 31

#include <errno.h>
#include <fuse_lowlevel.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FOREVER 86400.0
#define TEXT_SIZE 4096

enum { ROOT = 1, MEMORY = 5, BLOCK_SIZE = 6, AUTO_ONLINE = 7 };
enum kind { NONE, DIRECTORY, TEXT, LINK };

struct file {
	const char *name;
	enum kind kind;
	const char *text;
};

/* The path to the blocks: inode 2 is sys, 5 is memory. */
static const char *const path[] = {[2] = "sys", [3] = "devices", [4] = "system", [5] = "memory"};

static const struct file above[] = {
	{"block_size_bytes", TEXT, "8000000\n"},
	{"auto_online_blocks", TEXT, "offline\n"},
};

static const struct file files[] = {
	{NULL, DIRECTORY, NULL},
	{"node0", LINK, "../../node/node0"},
	{"online", TEXT, "1\n"},
	{"phys_device", TEXT, "0\n"},
	{"phys_index", TEXT, "00000000\n"},
	{"power", DIRECTORY, NULL},
	{"removable", TEXT, "1\n"},
	{"state", TEXT, "online\n"},
	{"subsystem", LINK, "../../../../bus/memory"},
	{"uevent", TEXT, ""},
	{"valid_zones", TEXT, "Normal\n"},
};
#define FILES (sizeof(files) / sizeof(files[0]))

static fuse_ino_t blocks;

/* What an inode is; NONE where there is no such inode. */
static enum kind kind_of(fuse_ino_t ino)
{
	if (ino >= 16)
		return ino / 16 <= blocks && ino % 16 < FILES ? files[ino % 16].kind : NONE;
	if (ino >= ROOT && ino <= MEMORY)
		return DIRECTORY;
	return ino == BLOCK_SIZE || ino == AUTO_ONLINE ? TEXT : NONE;
}

static const char *text_of(fuse_ino_t ino)
{
	return ino < 16 ? above[ino - BLOCK_SIZE].text : files[ino % 16].text;
}

static struct stat attributes(fuse_ino_t ino)
{
	enum kind kind = kind_of(ino);
	struct stat st = {.st_ino = ino, .st_nlink = kind == DIRECTORY ? 2 : 1, .st_uid = getuid(), .st_gid = getgid()};

	st.st_mode = kind == DIRECTORY ? S_IFDIR | 0755 : kind == LINK ? S_IFLNK | 0777 : S_IFREG | 0644;
	st.st_size = kind == TEXT ? TEXT_SIZE : 0;
	return st;
}

static struct fuse_entry_param entry_of(fuse_ino_t ino)
{
	return (struct fuse_entry_param){
		.ino = ino, .attr = attributes(ino), .attr_timeout = FOREVER, .entry_timeout = FOREVER};
}

/* The inode of a name in a directory, 0 where there is none. */
static fuse_ino_t find(fuse_ino_t parent, const char *name)
{
	unsigned long block;
	char *end;

	if (parent < MEMORY)
		return strcmp(name, path[parent + 1]) ? 0 : parent + 1;
	if (parent == MEMORY && !strncmp(name, "memory", 6) && name[6]) {
		block = strtoul(name + 6, &end, 10);
		return *end || block >= blocks ? 0 : (block + 1) * 16;
	}
	if (parent == MEMORY)
		for (size_t i = 0; i < 2; i++)
			if (!strcmp(name, above[i].name))
				return BLOCK_SIZE + i;
	if (parent >= 16 && parent % 16 == 0)
		for (size_t i = 1; i < FILES; i++)
			if (!strcmp(name, files[i].name))
				return parent + i;
	return 0;
}

/* The entry of a directory at a position, counted from 0: its inode and name; 0 past the end. */
static fuse_ino_t entry_at(fuse_ino_t dir, size_t at, char name[static 32])
{
	if (dir < MEMORY && at == 0)
		return strcpy(name, path[dir + 1]), dir + 1;
	if (dir == MEMORY && at < 2)
		return strcpy(name, above[at].name), BLOCK_SIZE + at;
	if (dir == MEMORY && at - 2 < blocks)
		return snprintf(name, 32, "memory%zu", at - 2), (at - 1) * 16;
	if (dir >= 16 && dir % 16 == 0 && at + 1 < FILES)
		return strcpy(name, files[at + 1].name), dir + at + 1;
	return 0;
}

static void do_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fuse_entry_param entry = entry_of(find(parent, name));

	if (entry.ino)
		fuse_reply_entry(req, &entry);
	else
		fuse_reply_err(req, ENOENT);
}

static void do_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct stat st = attributes(ino);

	(void)fi;
	fuse_reply_attr(req, &st, FOREVER);
}

static void do_readlink(fuse_req_t req, fuse_ino_t ino)
{
	fuse_reply_readlink(req, text_of(ino));
}

static void do_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	fi->fh = ino;
	fi->direct_io = 1;
	fuse_reply_open(req, fi);
}

static void do_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
	const char *text = text_of(ino);
	size_t length = strlen(text), left = (size_t)offset < length ? length - (size_t)offset : 0;

	(void)fi;
	fuse_reply_buf(req, left ? text + offset : NULL, left < size ? left : size);
}

static void do_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
	char *buffer = malloc(size), name[32];
	size_t used = 0, step;
	struct fuse_entry_param entry;

	(void)fi;
	if (!buffer) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	for (fuse_ino_t found; (found = entry_at(ino, (size_t)offset, name)); used += step) {
		entry = entry_of(found);
		step = fuse_add_direntry_plus(req, buffer + used, size - used, name, &entry, ++offset);
		if (step > size - used)
			break;
	}
	fuse_reply_buf(req, buffer, used);
	free(buffer);
}

static const struct fuse_lowlevel_ops operations = {
	.lookup = do_lookup,
	.getattr = do_getattr,
	.readlink = do_readlink,
	.open = do_open,
	.read = do_read,
	.readdirplus = do_readdirplus,
};

int main(int argc, char **argv)
{
	char *options[] = {"floor", "-o", "default_permissions,fsname=floor"};
	struct fuse_args args = FUSE_ARGS_INIT(3, options);
	struct fuse_session *session;
	int failed;

	if (argc != 3 || !(blocks = strtoul(argv[2], NULL, 10))) {
		fprintf(stderr, "usage: floor DIR BLOCKS\n");
		return 2;
	}
	session = fuse_session_new(&args, &operations, sizeof(operations), NULL);
	if (!session || fuse_set_signal_handlers(session) || fuse_session_mount(session, argv[1]))
		return 1;
	failed = fuse_session_loop(session);
	fuse_session_unmount(session);
	fuse_remove_signal_handlers(session);
	fuse_session_destroy(session);
	return failed < 0;
}
