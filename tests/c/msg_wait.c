// SPDX-License-Identifier: MIT OR Apache-2.0
// Sleeping in msgsnd and msgrcv: what wakes whom, in which order, who gets which message, and what
// becomes of who does not wake.
#include "msg.h"

static void receivers_sleep_and_wake(char **args)
{
    (void)args;
    int id = queue();
    static const struct {
        long want;
        int flags;
        long wrong, right;
    } cases[] = {{0, 0, 0, 7},         {5, 0, 4, 5},          {-5, 0, 6, 5},         {-5, 0, 6, 1},
                 {5, EXCEPT, 5, 6},    {LONG_MIN, 0, 0, LONG_MAX}, {LONG_MAX, 0, 1, LONG_MAX}, {65, 0, 1, 65}};
    for (size_t n = 0; n < sizeof cases / sizeof cases[0]; n++) {
        pid_t child = receiver(id, cases[n].want, 64, cases[n].flags, 0, "for you");
        if (cases[n].wrong != 0) {
            sends(id, cases[n].wrong, "not for you");
            // Nobody takes it, and the sleeper sleeps on.
            HOLDS(id, 1, 11);
            until_asleep(child);
        }
        sends(id, cases[n].right, "for you");
        // It has it when the call that gave it has come back.
        HOLDS(id, cases[n].wrong != 0, cases[n].wrong != 0 ? 11 : 0);
        SAME(queue_stat(id).msg_lrpid, child);
        wait_ok(child);
        while (take(id, ROOM, 0, NOWAIT) >= 0)
            ;
    }
    queue_gone(id);
}

// A message that a sleeper waits for does not even enter the queue.
static void given_is_given(char **args)
{
    (void)args;
    int id = queue();
    for (unsigned n = 0; n < 200; n++) {
        size_t size = n % 4 == 0 ? 5000 : n;
        pid_t child = fork();
        if (child == 0) {
            struct message message;
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            SAME(msgrcv(id, &message, ROOM, n % 2 ? 1 : 0, 0), size);
            CHECK(is_filled(message.text, size, n));
            _exit(0);
        }
        until_asleep(child);
        CHECK(put_bytes(id, 1, size, n, 0) == 0);
        NOTHING(id, 0, 0);
        HOLDS(id, 0, 0);
        wait_ok(child);
        HOLDS(id, 0, 0);
    }
    queue_gone(id);
}

static void receivers_in_their_order(char **args)
{
    (void)args;
    enum { MANY = 9 };
    int id = queue();
    char text[2] = "a";
    pid_t children[MANY];
    for (int n = 0; n < MANY; n++) {
        text[0] = (char)('a' + n);
        children[n] = receiver(id, n % 3 ? 0 : -9, 1, 0, 0, text);
    }
    for (int n = 0; n < MANY; n++) {
        text[0] = (char)('a' + n);
        sends(id, 3, text);
        wait_ok(children[n]);
        HOLDS(id, 0, 0);
    }
    // By type: who was first among those whom it fits.
    static const long wants[] = {5, 3, -4, 5, 0, 3};
    for (int n = 0; n < 6; n++) {
        text[0] = (char)('a' + n);
        children[n] = receiver(id, wants[n], 1, 0, 0, text);
    }
    sends(id, 4, "c");
    wait_ok(children[2]);
    sends(id, 3, "b");
    wait_ok(children[1]);
    sends(id, 3, "e");
    wait_ok(children[4]);
    sends(id, 9, "nobody's");
    HOLDS(id, 1, 8);
    sends(id, 3, "f");
    wait_ok(children[5]);
    sends(id, 5, "a");
    wait_ok(children[0]);
    sends(id, 5, "d");
    wait_ok(children[3]);
    HOLDS(id, 1, 8);
    queue_gone(id);
}

static void the_other_sleeps_on(char **args)
{
    (void)args;
    int id = queue();
    for (int n = 0; n < 20; n++) {
        pid_t one = receiver(id, 1, 9, 0, 0, "one"), two = receiver(id, 2, 9, 0, 0, "two");
        pid_t low = receiver(id, -n - 3 + n, 9, EXCEPT, 0, "three");
        sends(id, 2, "two");
        wait_ok(two);
        until_asleep(one);
        sends(id, 9, "nine");
        until_asleep(one);
        until_asleep(low);
        RECEIVES(id, 0, 0, 9, "nine");
        sends(id, 3, "three");
        wait_ok(low);
        until_asleep(one);
        sends(id, 1, "one");
        wait_ok(one);
        HOLDS(id, 0, 0);
    }
    queue_gone(id);
}

// A sleeper with too little room for what it is given fails; the message goes to the next.
static void sleepers_with_little_room(char **args)
{
    (void)args;
    int id = queue();
    pid_t small = receiver(id, 0, 4, 0, E2BIG, NULL), cuts = receiver(id, 0, 4, NOERROR, 0, "1234");
    sends(id, 1, "12345");
    wait_ok(small);
    wait_ok(cuts);
    HOLDS(id, 0, 0);
    small = receiver(id, 0, 4, 0, E2BIG, NULL);
    pid_t other = receiver(id, 1, 0, 0, E2BIG, NULL), type = receiver(id, 2, 0, 0, E2BIG, NULL);
    pid_t large = receiver(id, 0, 5, 0, 0, "12345");
    sends(id, 1, "12345");
    wait_ok(small);
    wait_ok(other);
    wait_ok(large);
    until_asleep(type);
    HOLDS(id, 0, 0);
    // With nobody left it stays in the queue, for whoever comes.
    sends(id, 2, "12");
    wait_ok(type);
    HOLDS(id, 1, 2);
    SAME(queue_stat(id).msg_lrpid, large);
    // A message without text fits everywhere.
    pid_t none = receiver(id, 3, 0, 0, 0, "");
    sends(id, 3, "");
    wait_ok(none);
    RECEIVES(id, 0, 0, 2, "12");
    queue_gone(id);
}

static void senders_sleep_and_wake(char **args)
{
    (void)args;
    int id = queue();
    set_bytes(id, 100);
    for (unsigned n = 0; n < 50; n++) {
        CHECK(put_bytes(id, 1, 100, n, 0) == 0);
        pid_t child = sender(id, 2, 60 + n % 40, n + 1000, 0);
        HOLDS(id, 1, 100);
        // Its message is not there yet.
        NOTHING(id, 2, 0);
        takes(id, 1, 100, n);
        wait_ok(child);
        HOLDS(id, 1, 60 + n % 40);
        SAME(queue_stat(id).msg_lspid, child);
        takes(id, 2, 60 + n % 40, n + 1000);
    }
    // Full by count.
    set_bytes(id, 2);
    for (unsigned n = 0; n < 20; n++) {
        CHECK(put_bytes(id, 1, 0, 0, 0) == 0 && put_bytes(id, 1, 0, 0, 0) == 0);
        pid_t child = sender(id, 2, 0, 0, 0);
        SAME(take(id, 0, 1, NOWAIT), 0);
        wait_ok(child);
        HOLDS(id, 2, 0);
        SAME(take(id, 0, 1, NOWAIT), 0);
        SAME(take(id, 0, 2, NOWAIT), 0);
    }
    queue_gone(id);
}

// One that fits passes one that does not.
static void small_ones_pass(char **args)
{
    (void)args;
    int id = queue();
    set_bytes(id, 1000);
    for (unsigned n = 0; n < 10; n++)
        CHECK(put_bytes(id, 1, 100, n, 0) == 0);
    pid_t large = sender(id, 2, 500, 70, 0), small = sender(id, 3, 100, 71, 0);
    takes(id, 0, 100, 0);
    wait_ok(small);
    HOLDS(id, 10, 1000);
    until_asleep(large);
    // A newcomer that fits need not wait either.
    takes(id, 0, 100, 1);
    until_asleep(large);
    CHECK(put_bytes(id, 4, 40, 72, NOWAIT) == 0);
    for (unsigned n = 2; n < 6; n++) {
        until_asleep(large);
        takes(id, 1, 100, n);
    }
    until_asleep(large);
    takes(id, 4, 40, 72);
    wait_ok(large);
    HOLDS(id, 6, 1000);
    // In the order in which they came in.
    for (unsigned n = 6; n < 10; n++)
        takes(id, 0, 100, n);
    takes(id, 0, 100, 71);
    takes(id, 0, 500, 70);
    queue_gone(id);
}

// Several wait: room for one is room for one only, and all come in in the end, each once.
static void many_senders(char **args)
{
    (void)args;
    enum { MANY = 12 };
    int id = queue();
    set_bytes(id, 50);
    CHECK(put_bytes(id, 99, 50, 0, 0) == 0);
    pid_t children[MANY];
    int seen[MANY] = {0};
    for (int n = 0; n < MANY; n++)
        children[n] = sender(id, n + 1, 50, (unsigned)n, 0);
    takes(id, 99, 50, 0);
    for (int n = 0; n < MANY; n++) {
        struct message message;
        SAME(msgrcv(id, &message, ROOM, 0, 0), 50);
        int which = (int)message.type - 1;
        CHECK(which >= 0 && which < MANY && seen[which]++ == 0);
        CHECK(is_filled(message.text, 50, (unsigned)which));
    }
    for (int n = 0; n < MANY; n++)
        wait_ok(children[n]);
    HOLDS(id, 0, 0);
    queue_gone(id);
}

// A sender that is let in hands its message straight to a receiver that waits for it.
static void from_sleeper_to_sleeper(char **args)
{
    (void)args;
    int id = queue();
    set_bytes(id, 10);
    for (unsigned n = 0; n < 50; n++) {
        CHECK(put_bytes(id, 1, 10, n, 0) == 0);
        char text[6] = "";
        fill(text, 5, 1);
        pid_t out = receiver(id, 2, 9, 0, 0, text), in = sender(id, 2, 5, 1, 0);
        // Though there is somebody who waits for it: it has to fit into the queue first.
        until_asleep(out);
        takes(id, 1, 10, n);
        wait_ok(in);
        wait_ok(out);
        HOLDS(id, 0, 0);
    }
    queue_gone(id);
}

static void setting_wakes(char **args)
{
    (void)args;
    int id = queue();
    set_bytes(id, 10);
    CHECK(put_bytes(id, 1, 10, 1, 0) == 0);
    pid_t small = sender(id, 2, 10, 2, 0), large = sender(id, 3, 60, 3, 0);
    set_bytes(id, 15);
    until_asleep(small);
    until_asleep(large);
    HOLDS(id, 1, 10);
    set_bytes(id, 20);
    wait_ok(small);
    until_asleep(large);
    HOLDS(id, 2, 20);
    set_bytes(id, 80);
    wait_ok(large);
    HOLDS(id, 3, 80);
    takes(id, 0, 10, 1);
    takes(id, 0, 10, 2);
    takes(id, 0, 60, 3);
    // A message that cannot fit now may later.
    set_bytes(id, 10);
    large = sender(id, 3, 60, 4, 0);
    HOLDS(id, 0, 0);
    CHECK(put_bytes(id, 1, 10, 5, NOWAIT) == 0);
    takes(id, 0, 10, 5);
    until_asleep(large);
    set_bytes(id, 60);
    wait_ok(large);
    takes(id, 0, 60, 4);
    // Receivers are not disturbed by what does not concern them.
    pid_t child = receiver(id, 0, 9, 0, 0, "x");
    for (int n = 0; n < 20; n++) {
        set_bytes(id, 10 + (unsigned long)n);
        until_asleep(child);
    }
    sends(id, 1, "x");
    wait_ok(child);
    HOLDS(id, 0, 0);
    queue_gone(id);
}

// Blocked is asleep: no processor time.
static void sleepers_sleep(char **args)
{
    (void)args;
    int id = queue();
    set_bytes(id, 10);
    CHECK(put_bytes(id, 9, 10, 0, 0) == 0);
    pid_t children[4] = {receiver(id, 1, 9, 0, EIDRM, NULL), receiver(id, 2, 9, 0, EIDRM, NULL),
                         sender(id, 1, 9, 0, EIDRM), sender(id, 2, 9, 0, EIDRM)};
    unsigned long before[4], after[4];
    for (int n = 0; n < 4; n++)
        cpu_of(children[n], &before[n]);
    nanosleep(&(struct timespec){1, 0}, NULL);
    for (int n = 0; n < 4; n++) {
        cpu_of(children[n], &after[n]);
        CHECK(after[n] - before[n] <= 1);
        until_state(children[n], 'S');
    }
    queue_gone(id);
    for (int n = 0; n < 4; n++)
        wait_ok(children[n]);
}

// No herd: a message for one does not even wake the others.
static void one_is_disturbed(char **args)
{
    (void)args;
    enum { MANY = 12 };
    int id = queue();
    pid_t children[MANY];
    long before[MANY];
    for (int n = 0; n < MANY; n++)
        children[n] = receiver(id, n % 2 ? 0 : n + 1, 9, 0, 0, "x");
    // Long enough to have settled.
    nanosleep(&(struct timespec){0, 50000000}, NULL);
    time_t begun = time(NULL);
    for (int n = 0; n < MANY; n++)
        before[n] = switches_of(children[n]);
    long disturbed = 0;
    for (int n = 0; n < MANY; n++) {
        sends(id, n % 2 ? 99 : n + 1, "x");
        wait_ok(children[n]);
        for (int other = n + 1; other < MANY; other++) {
            disturbed += switches_of(children[other]) - before[other];
            before[other] = switches_of(children[other]);
        }
    }
    // A sleeper may look around by itself every two seconds; a herd would be 66 more.
    CHECK(disturbed <= MANY + MANY * (time(NULL) - begun));
    queue_gone(id);
}

// Two processes that hand each other the turn.
static void ping_pong(char **args)
{
    (void)args;
    enum { TURNS = 20000 };
    int id = queue();
    struct {
        long type;
        int turn;
    } ping = {1, 0}, pong = {2, 0};
    pid_t child = fork();
    if (child == 0) {
        for (int n = 0; n < TURNS; n++) {
            SAME(msgrcv(id, &ping, sizeof ping.turn, 1, 0), sizeof ping.turn);
            SAME(ping.turn, n);
            pong.turn = n;
            CHECK(msgsnd(id, &pong, sizeof pong.turn, 0) == 0);
        }
        _exit(0);
    }
    for (int n = 0; n < TURNS; n++) {
        ping.turn = n;
        CHECK(msgsnd(id, &ping, sizeof ping.turn, 0) == 0);
        SAME(msgrcv(id, &pong, sizeof pong.turn, 2, 0), sizeof pong.turn);
        SAME(pong.turn, n);
    }
    wait_ok(child);
    HOLDS(id, 0, 0);
    queue_gone(id);
}

// System calls by number sleep in the same way.
static void raw_calls_sleep(char **args)
{
    (void)args;
    int id = queue();
    for (unsigned n = 0; n < 20; n++) {
        pid_t child = fork();
        if (child == 0) {
            struct message message;
            SAME(syscall(SYS_msgrcv, id, &message, (size_t)ROOM, 1L, 0), n * 50);
            CHECK(is_filled(message.text, n * 50, n));
            message.type = 2;
            CHECK(syscall(SYS_msgsnd, id, &message, (size_t)4000, 0) == 0);
            _exit(0);
        }
        until_asleep(child);
        set_bytes(id, 2000);
        CHECK(put_bytes(id, 1, n * 50, n, NOWAIT) == 0);
        HOLDS(id, 0, 0);
        // Its answer does not fit.
        until_asleep(child);
        HOLDS(id, 0, 0);
        set_bytes(id, 4000);
        wait_ok(child);
        SAME(take(id, ROOM, 2, NOWAIT), 4000);
    }
    queue_gone(id);
}

// A stream through a queue that is small: both sides wait again and again.
static void stream(char **args)
{
    (void)args;
    enum { MANY = 20000 };
    int id = queue();
    set_bytes(id, 600);
    pid_t child = fork();
    if (child == 0) {
        struct message message;
        for (unsigned n = 0; n < MANY; n++) {
            SAME(msgrcv(id, &message, ROOM, 0, 0), n % 599);
            CHECK(is_filled(message.text, n % 599, n));
        }
        _exit(0);
    }
    for (unsigned n = 0; n < MANY; n++)
        CHECK(put_bytes(id, 1, n % 599, n, 0) == 0);
    wait_ok(child);
    HOLDS(id, 0, 0);
    queue_gone(id);
}

SCENARIOS({"receivers_sleep_and_wake", receivers_sleep_and_wake},
          {"given_is_given", given_is_given},
          {"receivers_in_their_order", receivers_in_their_order},
          {"the_other_sleeps_on", the_other_sleeps_on},
          {"sleepers_with_little_room", sleepers_with_little_room},
          {"senders_sleep_and_wake", senders_sleep_and_wake},
          {"small_ones_pass", small_ones_pass},
          {"many_senders", many_senders},
          {"from_sleeper_to_sleeper", from_sleeper_to_sleeper},
          {"setting_wakes", setting_wakes},
          {"sleepers_sleep", sleepers_sleep},
          {"one_is_disturbed", one_is_disturbed},
          {"ping_pong", ping_pong},
          {"raw_calls_sleep", raw_calls_sleep},
          {"stream", stream})
