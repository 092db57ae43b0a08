// SPDX-License-Identifier: MIT OR Apache-2.0
// Does the calls on message queues that it is told on stdin, one a line, and answers each with one
// line: `= VALUES`, or `! ERRNO`. The tests hold several of these in several domains. Numbers are as
// in C; a message's text has SIZE bytes that TAG tells.
//
//   up                        -> 0
//   get KEY FLAGS             -> id
//   send ID TYPE SIZE TAG FLAGS
//   receive ID ROOM TYPE FLAGS -> type, size, tag (-1 if the text is not whole)
//   stat ID                   -> qnum, cbytes, qbytes, lspid, lrpid, stime, rtime, ctime
//   set ID UID MODE QBYTES    IPC_SET
//   remove ID
//   limits                    -> MSGMNI, MSGMAX, MSGMNB
//   user UID                  changes the effective uid
//   catch SIGNAL              a handler that does nothing, with SA_RESTART
#include "msg.h"

static void answer(long value)
{
    if (value == -1)
        printf("! %d\n", errno);
    else
        printf("= %ld\n", value);
}

static void nothing(int signal)
{
    (void)signal;
}

// The tag comes first in the text of a message that has room for it.
static long send_tagged(int id, long type, size_t size, unsigned tag, int flags)
{
    static struct message message;
    message.type = type;
    fill(message.text, size, tag);
    if (size >= sizeof tag)
        memcpy(message.text, &tag, sizeof tag);
    return msgsnd(id, &message, size, flags);
}

static void receive_tagged(int id, size_t room, long want, int flags)
{
    static struct message message;
    static char whole[ROOM];
    unsigned tag = 0;
    ssize_t got = msgrcv(id, &message, room, want, flags);
    if (got < 0) {
        answer(-1);
        return;
    }
    if ((size_t)got >= sizeof tag)
        memcpy(&tag, message.text, sizeof tag);
    fill(whole, (size_t)got, tag);
    if ((size_t)got >= sizeof tag)
        memcpy(whole, &tag, sizeof tag);
    printf("= %ld %zd %ld\n", message.type, got,
           memcmp(whole, message.text, (size_t)got) == 0 ? (long)tag : -1L);
}

int main(void)
{
    char line[256], verb[16];
    while (fgets(line, sizeof line, stdin) != NULL) {
        char words[5][32] = {"", "", "", "", ""};
        long n[5];
        if (sscanf(line, "%15s %31s %31s %31s %31s %31s", verb, words[0], words[1], words[2], words[3],
                   words[4]) < 1)
            continue;
        for (int i = 0; i < 5; i++)
            n[i] = strtol(words[i], NULL, 0);
        int id = (int)n[0];
        if (strcmp(verb, "up") == 0) {
            answer(0);
        } else if (strcmp(verb, "get") == 0) {
            answer(msgget((key_t)n[0], (int)n[1]));
        } else if (strcmp(verb, "send") == 0) {
            answer(send_tagged(id, n[1], (size_t)n[2], (unsigned)n[3], (int)n[4]));
        } else if (strcmp(verb, "receive") == 0) {
            receive_tagged(id, (size_t)n[1], n[2], (int)n[3]);
        } else if (strcmp(verb, "stat") == 0) {
            struct msqid_ds ds;
            if (msgctl(id, IPC_STAT, &ds) == 0)
                printf("= %lu %lu %lu %d %d %ld %ld %ld\n", ds.msg_qnum, ds.__msg_cbytes, ds.msg_qbytes,
                       ds.msg_lspid, ds.msg_lrpid, ds.msg_stime, ds.msg_rtime, ds.msg_ctime);
            else
                answer(-1);
        } else if (strcmp(verb, "set") == 0) {
            struct msqid_ds ds = {.msg_perm = {.uid = (uid_t)n[1], .mode = (mode_t)n[2]},
                                  .msg_qbytes = (unsigned long)n[3]};
            answer(msgctl(id, IPC_SET, &ds));
        } else if (strcmp(verb, "remove") == 0) {
            answer(msgctl(id, IPC_RMID, NULL));
        } else if (strcmp(verb, "limits") == 0) {
            struct msginfo info = limits();
            printf("= %d %d %d\n", info.msgmni, info.msgmax, info.msgmnb);
        } else if (strcmp(verb, "user") == 0) {
            answer(seteuid((uid_t)n[0]));
        } else if (strcmp(verb, "catch") == 0) {
            handle((int)n[0], nothing, SA_RESTART);
            answer(0);
        } else {
            fprintf(stderr, "what is '%s'?\n", verb);
            return 1;
        }
        fflush(stdout);
    }
    return 0;
}
