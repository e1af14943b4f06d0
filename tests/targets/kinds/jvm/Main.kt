// What the tests ask of the phones' Kotlin, as a command. Prints one line of JSON.

import java.io.File
import java.net.URI
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.util.concurrent.ConcurrentLinkedQueue
import java.util.concurrent.CountDownLatch
import java.util.concurrent.TimeUnit
import kotlin.concurrent.thread
import kotlin.system.exitProcess
import shipway.model.Bundle
import shipway.model.Golden
import shipway.model.Model
import shipway.model.Provider
import shipway.model.ProviderException
import shipway.model.Release
import shipway.model.Tensor
import shipway.model.Update
import shipway.model.Updater
import shipway.model.unpacked

fun main(arguments: Array<String>) {
    when (arguments[0]) {
        "check" -> check(File(arguments[1]))
        "open" -> open(File(arguments[1]), arguments.drop(2).map { Provider.valueOf(it) })
        "run" -> run(File(arguments[1]), File(arguments[2]), arguments[3], File(arguments[4]), arguments.drop(5).map { it.toLong() })
        "misuse" -> misuse(File(arguments[1]))
        "update" -> update(URI(arguments[1]), File(arguments[2]), arguments[3].toInt(), arguments[4].toLong())
        "together" -> together(URI(arguments[1]), File(arguments[2]), arguments[3].toInt(), arguments[4].toLong())
        "unpack" -> unpack(File(arguments[1]), File(arguments[2]))
        else -> exitProcess(2)
    }
}

fun check(folder: File): Unit = Model(File(folder, Bundle.files[0].path)).use { model ->
    val report = Golden(folder).check(model)
    println(report.json())
    exitProcess(if (report.passed) 0 else 5)
}

fun open(graph: File, wanted: List<Provider>) = try {
    Model(graph, wanted).use { println("{\"provider\": \"${it.provider}\", \"missing\": [${it.missing.keys.joinToString { one -> "\"$one\"" }}]}") }
} catch (refused: ProviderException) {
    println("{\"refused\": ${quoted(refused.message!!)}}")
}

/** The first output of [graph], in [out], for the floats of the file [given] as its input called [name]. */
fun run(graph: File, given: File, name: String, out: File, shape: List<Long>) = Model(graph, listOf(Provider.CPU)).use { model ->
    val raw = given.readBytes()
    val room = ByteBuffer.allocateDirect(raw.size).order(ByteOrder.nativeOrder()).put(raw)
    room.rewind()
    val found = model.run(mapOf(name to Tensor(room, *shape.toLongArray()))).values.first()
    out.outputStream().use { it.channel.write(found.bytes.duplicate()) }
    println("{\"shape\": [${found.shape.joinToString()}]}")
}

fun misuse(graph: File) = Model(graph, listOf(Provider.CPU)).use { model ->
    val x = Tensor.of(FloatArray(4), 1, 4)
    val said = listOf(emptyMap(), mapOf("x" to x, "z" to x), mapOf("x" to Tensor.of(FloatArray(3), 1, 3))).map { inputs ->
        try {
            model.run(inputs).keys.joinToString()
        } catch (refused: Exception) {
            refused.message!!
        }
    }
    println(said.joinToString(", ", "[", "]") { quoted(it) })
}

fun update(pointer: URI, folder: File, patience: Int, deadline: Long) {
    val updater = Updater(pointer, folder, patience, deadline)
    val (how, why) = when (val update = updater.update()) {
        is Update.Installed -> "installed" to ""
        is Update.Unchanged -> "unchanged" to ""
        is Update.Kept -> "kept" to update.why
    }
    println("{\"how\": \"$how\", \"why\": ${quoted(why)}, \"now\": ${updater.installed()?.let { works(it) } ?: "null"}}")
}

/** An update while another one is downloading; what it has to say. */
fun together(pointer: URI, folder: File, patience: Int, deadline: Long) {
    thread(isDaemon = true) { Updater(pointer, folder, patience, deadline).update() }
    while (File(folder, "coming").list().isNullOrEmpty()) Thread.sleep(10)
    val update = Updater(pointer, folder, patience, deadline).update()
    println("{\"why\": ${quoted((update as Update.Kept).why)}}")
}

/** Unpack the app's model in two threads at once; whoever opens it first waits a second for the other one. */
fun unpack(home: File, assets: File) {
    val graphs = ConcurrentLinkedQueue<String>()
    val opened = CountDownLatch(2)
    val both = List(2) {
        thread {
            graphs += unpacked(home) { path ->
                opened.countDown()
                opened.await(1, TimeUnit.SECONDS)
                File(assets, path).inputStream()
            }.path
        }
    }
    both.forEach { it.join() }
    println("{\"graph\": ${quoted(graphs.toSet().single())}, \"opened\": ${2 - opened.count}}")
}

/** The release in use, and what it computes. */
fun works(release: Release): String = Model(release.graph, listOf(Provider.CPU)).use { model ->
    val y = model.run(mapOf("x" to Tensor.of(floatArrayOf(1f, 2f, 3f, 4f), 1, 4))).getValue("y").floats()
    "{\"serial\": ${release.serial}, \"version\": ${release.version}, \"y\": [${y.joinToString()}]}"
}

fun quoted(text: String) = text.fold(StringBuilder("\"")) { made, one ->
    if (one == '"' || one == '\\' || one < ' ') made.append("\\u%04x".format(one.code)) else made.append(one)
}.append('"').toString()
