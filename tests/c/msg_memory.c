// SPDX-License-Identifier: MIT OR Apache-2.0
// Where the text of messages comes from and goes to: every kind of memory, and memory that is none.
#include "msg.h"

static const char in_program[] = "\7\0\0\0\0\0\0\0text of the program's own";
static struct message static_message;

// `bytes` of memory with an unmapped page behind it.
static char *before_nothing(size_t bytes)
{
    size_t whole = (bytes + PAGE - 1) / PAGE * PAGE;
    char *at = mmap(NULL, whole + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(at != MAP_FAILED && munmap(at + whole, PAGE) == 0);
    return at + whole - bytes;
}

static void there_and_back(int id, void *from, void *to, size_t size, unsigned tag)
{
    struct message *out = from, *in = to;
    long type = 1 + tag, got;
    memcpy(&out->type, &type, sizeof type);
    fill(out->text, size, tag);
    CHECK(msgsnd(id, out, size, NOWAIT) == 0);
    // What was sent is what was there then.
    if (out != in)
        memset(out, 0, sizeof type + size);
    SAME(msgrcv(id, in, size, 0, NOWAIT), size);
    memcpy(&got, &in->type, sizeof got);
    SAME(got, type);
    CHECK(is_filled(in->text, size, tag));
}

static void every_kind_of_memory(char **args)
{
    (void)args;
    int id = queue();
    size_t most = 8000, sizes[] = {0, 1, 7, 8, 9, 71, 72, 73, 511, 512, 513, 4095, 4096, 4097, 8000};
    struct message on_stack;
    void *shared = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int segment = make(KEY, 4 * PAGE);
    void *memory[] = {&on_stack, &static_message, malloc(sizeof(long) + most), shared,
                      before_nothing(sizeof(long) + most), (void *)attach(segment)};
    enum { KINDS = sizeof memory / sizeof memory[0] };
    for (int from = 0; from < KINDS; from++)
        for (int to = 0; to < KINDS; to++)
            for (size_t n = 0; n < sizeof sizes / sizeof sizes[0]; n++)
                there_and_back(id, memory[from], memory[to], sizes[n], (unsigned)(from * 97 + to * 13) + (unsigned)n);
    // Text that cannot be written can be sent.
    CHECK(msgsnd(id, in_program, sizeof in_program - 9, NOWAIT) == 0);
    RECEIVES(id, 0, 0, 7, "text of the program's own");
    CHECK(mprotect(shared, 4 * PAGE, PROT_READ) == 0);
    CHECK(msgsnd(id, shared, 100, NOWAIT) == 0);
    SAME(take(id, ROOM, 0, NOWAIT), 100);
    free(memory[2]);
    detach(memory[5]);
    destroy(segment);
    queue_gone(id);
}

static void unaligned_memory(char **args)
{
    (void)args;
    int id = queue();
    char out[9000], in[9000];
    for (size_t from = 0; from < 17; from++)
        for (size_t to = 0; to < 17; to++)
            for (size_t size = 0; size < 1200; size = size * 3 + to + 1)
                there_and_back(id, out + from, in + to, size, (unsigned)(size + from));
    // Nothing beside the message is written.
    for (size_t size = 0; size < 3000; size = size * 2 + 1) {
        memset(in, 0x5a, sizeof in);
        CHECK(put_bytes(id, 3, size, 1, NOWAIT) == 0);
        SAME(msgrcv(id, in + 5, size + 50, 0, NOWAIT), size);
        CHECK(is_filled(in + 5 + sizeof(long), size, 1));
        for (size_t n = 0; n < 5; n++)
            SAME(in[n], 0x5a);
        for (size_t n = 5 + sizeof(long) + size; n < sizeof in; n++)
            SAME(in[n], 0x5a);
    }
    queue_gone(id);
}

static void at_the_end_of_memory(char **args)
{
    (void)args;
    int id = queue();
    for (size_t size = 0; size < 8192; size = size * 2 + 1) {
        char *last = before_nothing(sizeof(long) + size);
        *(long *)(void *)last = 1;
        fill(last + sizeof(long), size, 9);
        CHECK(msgsnd(id, last, size, NOWAIT) == 0);
        FAILS(EFAULT, msgsnd(id, last, size + 1, NOWAIT));
        HOLDS(id, 1, size);
        memset(last, 0, sizeof(long) + size);
        // More room than there is does no harm as long as it is not used.
        SAME(msgrcv(id, last, size + 5000, 0, NOWAIT), size);
        CHECK(is_filled(last + sizeof(long), size, 9));
        // A message that does not fit into the memory is lost, as much as fits is there.
        CHECK(put_bytes(id, 1, size + 1, 4, NOWAIT) == 0);
        FAILS(EFAULT, msgrcv(id, last, size + 1, 0, NOWAIT));
        HOLDS(id, 0, 0);
        // Cut off, it fits.
        CHECK(put_bytes(id, 1, size + 1, 4, NOWAIT) == 0);
        SAME(msgrcv(id, last, size, 0, NOWAIT | NOERROR), size);
        CHECK(is_filled(last + sizeof(long), size, 4));
        HOLDS(id, 0, 0);
    }
    queue_gone(id);
}

// Nowhere to put a message: it is received all the same.
static void received_into_nothing(char **args)
{
    (void)args;
    int id = queue();
    char *read_only = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *no_access = mmap(NULL, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    void *bad[] = {NULL, (void *)8, (void *)-8L, read_only, no_access, (void *)in_program,
                   (void *)0x0123456789abcdefUL, (void *)(1UL << 63)};
    for (size_t n = 0; n < sizeof bad / sizeof bad[0]; n++) {
        for (size_t size = 0; size < 5000; size = size * 7 + 10) {
            CHECK(put_bytes(id, 5, size, 1, NOWAIT) == 0);
            sends(id, 5, "next");
            FAILS(EFAULT, msgrcv(id, bad[n], size, 0, NOWAIT));
            HOLDS(id, 1, 4);
            SAME(queue_stat(id).msg_lrpid, getpid());
            // What is not there is no fault.
            FAILS(ENOMSG, msgrcv(id, bad[n], size, 6, NOWAIT));
            RECEIVES(id, 0, 0, 5, "next");
        }
        // A receiver that waits for it has it in the same way.
        pid_t child = fork();
        if (child == 0) {
            FAILS(EFAULT, msgrcv(id, bad[n], 100, 0, 0));
            _exit(0);
        }
        until_asleep(child);
        sends(id, 2, "lost");
        HOLDS(id, 0, 0);
        wait_ok(child);
        HOLDS(id, 0, 0);
    }
    for (size_t n = 0; n < sizeof bad / sizeof bad[0]; n++) {
        if (bad[n] == read_only || bad[n] == (void *)in_program)
            continue;
        FAILS(EFAULT, msgsnd(id, bad[n], 0, NOWAIT));
        FAILS(EFAULT, msgsnd(id, bad[n], 600, NOWAIT));
    }
    HOLDS(id, 0, 0);
    queue_gone(id);
}

// Sending from memory of which a part is not there: nothing is sent, and no room is lost.
static void sent_from_nothing(char **args)
{
    (void)args;
    int id = queue();
    char *at = mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(at != MAP_FAILED && mprotect(at + PAGE, PAGE, PROT_NONE) == 0);
    for (int n = 0; n < 20000; n++) {
        size_t room = 8 + (size_t)(n % 2000);
        char *from = at + PAGE - room;
        memcpy(from, &(long){1}, sizeof(long));
        FAILS(EFAULT, msgsnd(id, from, 4000, NOWAIT));
        FAILS(EFAULT, msgsnd(id, from, room - 7, NOWAIT));
    }
    HOLDS(id, 0, 0);
    SAME(queue_stat(id).msg_lspid, 0);
    SAME(queue_stat(id).msg_stime, 0);
    for (unsigned n = 0; n < 4; n++)
        CHECK(put_bytes(id, 1, 4000, n, NOWAIT) == 0);
    for (unsigned n = 0; n < 4; n++)
        takes(id, 0, 4000, n);
    queue_gone(id);
}

// The largest messages there may be.
static void big_messages(char **args)
{
    (void)args;
    struct msginfo info = limits();
    size_t most = (size_t)info.msgmax;
    int id = queue();
    // MSGMAX may be more than MSGMNB allows.
    if (most > (size_t)info.msgmnb)
        most = (size_t)info.msgmnb;
    struct message *out = malloc(sizeof(long) + most + 1), *in = malloc(sizeof(long) + most + 1);
    CHECK(out != NULL && in != NULL);
    for (unsigned n = 0; n < 30; n++) {
        size_t size = n < 20 ? most - n : most / n;
        out->type = 1;
        fill(out->text, size, n);
        CHECK(msgsnd(id, out, size, NOWAIT) == 0);
        HOLDS(id, 1, size);
        in->text[size] = 0x5a;
        SAME(msgrcv(id, in, most, 0, NOWAIT), size);
        CHECK(is_filled(in->text, size, n));
        SAME(in->text[size], 0x5a);
    }
    // To and fro between processes, as fast as they come.
    enum { MANY = 400 };
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        for (unsigned n = 0; n < MANY; n++) {
            size_t size = most - n % 7 * (most / 8);
            SAME(msgrcv(id, in, most, 0, 0), size);
            CHECK(is_filled(in->text, size, n));
        }
        _exit(0);
    }
    for (unsigned n = 0; n < MANY; n++) {
        size_t size = most - n % 7 * (most / 8);
        fill(out->text, size, n);
        CHECK(msgsnd(id, out, size, 0) == 0);
    }
    wait_ok(child);
    HOLDS(id, 0, 0);
    if ((size_t)info.msgmax == most)
        FAILS(EINVAL, msgsnd(id, out, most + 1, 0));
    free(out);
    free(in);
    queue_gone(id);
}

SCENARIOS({"every_kind_of_memory", every_kind_of_memory},
          {"unaligned_memory", unaligned_memory},
          {"at_the_end_of_memory", at_the_end_of_memory},
          {"received_into_nothing", received_into_nothing},
          {"sent_from_nothing", sent_from_nothing},
          {"big_messages", big_messages})
